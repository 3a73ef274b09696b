"""A checksum in front of what a column holds, so that a flipped byte is noticed even where the rest can be decoded."""

from __future__ import annotations

import struct
import zlib
from typing import Final

# No msgpack begins with this byte, so a column that an older build has written is known by having no seal.
_MARK: Final = 0xC1
_SEAL: Final = struct.Struct("<BI")


def seal(content: bytes | memoryview) -> bytes:
    """Return `content` behind its CRC-32."""
    return _SEAL.pack(_MARK, zlib.crc32(content)) + content


def unseal(stored: bytes) -> bytes:
    """Return the sealed bytes; bytes that an older build wrote without a seal are returned unchanged. ValueError: damaged.

    >>> unseal(seal(b"abc")), unseal(b"abc")
    (b'abc', b'abc')
    """
    if len(stored) < _SEAL.size or stored[0] != _MARK:
        return stored
    content = stored[_SEAL.size :]
    if zlib.crc32(content) != _SEAL.unpack_from(stored)[1]:
        raise ValueError("its checksum does not match: its bytes have changed since they were written")
    return content

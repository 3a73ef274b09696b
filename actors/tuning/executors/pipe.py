"""Messages between a worker, its zygote and their children: length and msgpack over a Unix socket pair."""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgpack

_LENGTH = struct.Struct("<I")
_CHUNK = 1 << 16
# An error or a path may hold half a character that UTF-8 cannot carry: it must arrive, whatever the store does with it.
_TEXTS = "surrogatepass"


class ClosedError(EOFError):
    """The other side has ended."""


class Pipe:
    """One end of a socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._received = b""

    def fileno(self) -> int:
        """Return the descriptor, for poll."""
        return self._socket.fileno()

    def send(self, message: Any, descriptors: tuple[int, ...] = ()) -> None:
        """Send one message; ClosedError where the other side has ended."""
        packed = msgpack.packb(message, unicode_errors=_TEXTS)
        data = _LENGTH.pack(len(packed)) + packed
        try:
            if descriptors:
                sent = socket.send_fds(self._socket, [data], list(descriptors))
                data = data[sent:]
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ClosedError(str(error)) from error

    def receive(self, *, within_s: float | None = None) -> Any:
        """Wait for one message; ClosedError at the end, TimeoutError where nothing more of it comes `within_s`."""
        if within_s is not None:
            self._socket.settimeout(within_s)
        while len(self._received) < _LENGTH.size:
            self._more()
        (length,) = _LENGTH.unpack_from(self._received)
        whole = _LENGTH.size + length
        while len(self._received) < whole:
            self._more()
        message, self._received = self._received[_LENGTH.size : whole], self._received[whole:]
        if within_s is not None:
            self._socket.settimeout(None)
        return msgpack.unpackb(message, strict_map_key=False, unicode_errors=_TEXTS)

    def receive_with_descriptor(self) -> tuple[Any, int]:
        """Wait for one small message that carries a descriptor."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _CHUNK, 1)
        except ConnectionResetError as error:
            raise ClosedError(str(error)) from error
        if not data or not descriptors:
            raise ClosedError("no descriptor")
        self._received += data
        return self.receive(), descriptors[0]

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _more(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except ConnectionResetError as error:
            raise ClosedError(str(error)) from error
        if not data:
            raise ClosedError("end of file")
        self._received += data

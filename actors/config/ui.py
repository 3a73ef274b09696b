"""The configuration of the page: where it listens, and who may read and act."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from actors.checks import shown
from actors.config.fields import Section
from actors.config.values import REFERENCE

# A token of this many characters from `openssl rand -hex` cannot be guessed through a page.
SHORTEST_TOKEN: Final = 16
EVENTS_PER_S: Final = 20_000


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine, by a name or address that no other machine reaches.

    >>> is_loopback("localhost"), is_loopback("127.0.0.2"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reference(value: str) -> str:
    if not REFERENCE.fullmatch(value):
        raise ValueError("must be a reference to the environment like ${NAME}, because the store keeps the configuration")
    return value


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise ValueError(f"must be an address or a network like 10.0.0.0/8, got {shown(value)}") from None
    return value


def _header(value: str) -> str:
    if not value or not all(each.isascii() and (each.isalnum() or each == "-") for each in value):
        raise ValueError(f"must be the name of a header like X-Forwarded-User, got {shown(value)}")
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"must be the page's address like https://visutility.example.org, got {shown(value)}")
    return value.rstrip("/")


class UiTokens(Section):
    """Tokens for reading, for acting, or for posting events; references, because the store keeps the configuration."""

    reader: Annotated[str, AfterValidator(_reference)] | None = None
    """The token for reading, as `${NAME}`: at least 16 characters."""
    operator: Annotated[str, AfterValidator(_reference)] | None = None
    """The token for reading and acting, as `${NAME}`: at least 16 characters."""
    writer: Annotated[str, AfterValidator(_reference)] | None = None
    """The token for jobs that only post events to the API, as `${NAME}`: at least 16 characters."""


class UiSettings(Section):
    """The page: where it listens, who may read and who may act."""

    enabled: bool = False
    """Serve the page as a part of the system, from its head node; `visutility ui` serves one at any time."""
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """The address to listen on; any other than loopback needs tokens or a trusted proxy."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8420
    """The port to listen on."""
    url: Annotated[str, AfterValidator(_url)] | None = None
    """The public URL of the page, like `https://visutility.example.org`; notifications and metrics link to it."""
    tokens: UiTokens = Field(default_factory=UiTokens)
    """The tokens for readers, and for operators."""
    trusted_proxies: list[Annotated[str, AfterValidator(_network)]] = Field(default_factory=list)
    """Addresses or networks of proxies that authenticate their users; these users may act."""
    user_header: Annotated[str, AfterValidator(_header)] = "X-Forwarded-User"
    """The header in which the proxy names the user."""
    max_events_per_s: Annotated[int, Field(ge=1, le=10_000_000)] = EVENTS_PER_S
    """Events that each token (or user of a proxy) may post to the API in a second, on average over ten seconds."""

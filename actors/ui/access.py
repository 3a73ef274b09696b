"""Decides who asks: what a request may read and do, and under which name it acts.

A request is let in by a token (as a bearer, or by the cookie of a sign-in), by the header of a trusted proxy, or, where
neither is configured, for coming from this machine. A request that changes something must come from a page of this site:
browsers say so in `Origin` and `Sec-Fetch-Site`, and the cookie is `SameSite=Strict`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from actors.config.ui import SHORTEST_TOKEN, UiSettings, is_loopback
from actors.config.values import expand
from actors.people import signature

Role = Literal["reader", "operator", "writer"]

COOKIE: Final = "visutility"
SESSION_S: Final = 12 * 3600.0


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks: what it may do, and the name that its acts are recorded under, where one is known."""

    role: Role
    name: str | None = None

    @property
    def may_read(self) -> bool:
        """Return whether it may see what the system knows: a job that posts events need not."""
        return self.role != "writer"

    @property
    def may_act(self) -> bool:
        """Return whether it may change something."""
        return self.role == "operator"

    @property
    def may_log(self) -> bool:
        """Return whether it may post events."""
        return self.role != "reader"


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one page; `local_name` is what acts from this machine are recorded under where there are no tokens."""

    tokens: Mapping[Role, str] = field(default_factory=dict)
    proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    user_header: str = "X-Forwarded-User"
    local_name: str | None = None

    @property
    def loopback_only(self) -> bool:
        """Return whether nobody but this machine is let in."""
        return not self.tokens and not self.proxies

    def visitor(self, request: HTTPConnection, now_s: float) -> Visitor | None:
        """Return who asks, None where nobody is let in by this request."""
        if self.loopback_only:
            return Visitor("operator", self.local_name) if _is_local(request) else None
        named = request.headers.get(self.user_header)
        if named and self._is_proxy(request):
            try:
                return Visitor("operator", signature(named).by)
            except ValueError:
                return None
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and (role := self.role_of(bearer.strip())):
            return Visitor(role)
        return self._signed_in(request.cookies.get(COOKIE, ""), now_s)

    def role_of(self, token: str) -> Role | None:
        """Return what a token allows, None where it is none of ours; the time that it takes says nothing of the token."""
        found: Role | None = None
        for role, known in self.tokens.items():
            if hmac.compare_digest(known.encode(), token.encode("utf-8", "replace")):
                found = role
        return found

    def cookie(self, visitor: Visitor, now_s: float) -> str:
        """Return the cookie of a sign-in; it holds the name and the right, sealed, and never the token."""
        name = base64.urlsafe_b64encode((visitor.name or "").encode()).decode()
        said = f"{visitor.role}.{name}.{int(now_s + SESSION_S)}"
        return f"{said}.{self._seal(said)}"

    def _signed_in(self, cookie: str, now_s: float) -> Visitor | None:
        said, _, seal = cookie.rpartition(".")
        if not said or not hmac.compare_digest(seal.encode("utf-8", "replace"), self._seal(said).encode()):
            return None
        role, name, until = said.split(".")
        if float(until) < now_s or role not in self.tokens or role == "writer":
            return None
        who = base64.urlsafe_b64decode(name).decode() or None
        return Visitor("operator" if role == "operator" else "reader", who)  # nobody signs in as a job

    def _seal(self, said: str) -> str:
        # From the tokens: a new token ends every session, and no secret of the page's own has to be kept.
        key = hashlib.sha256("\n".join(f"{role}={token}" for role, token in sorted(self.tokens.items())).encode()).digest()
        return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()

    def _is_proxy(self, request: HTTPConnection) -> bool:
        address = _address(request)
        return address is not None and any(address in network for network in self.proxies)


def from_settings(ui: UiSettings, environment: Mapping[str, str], *, host: str, local_name: str | None = None) -> Access:
    """Return the rules that the configuration states.

    Raises:
        ValueError: a token is missing or too short, or `host` is not loopback and nobody would be checked.
    """
    tokens: dict[Role, str] = {}
    written: tuple[tuple[Role, str | None], ...] = (
        ("reader", ui.tokens.reader),
        ("operator", ui.tokens.operator),
        ("writer", ui.tokens.writer),
    )
    for role, reference in written:
        if reference is None:
            continue
        token = str(expand(reference, environment))
        if len(token) < SHORTEST_TOKEN:
            raise ValueError(f"ui.tokens.{role}: {reference} must have at least {SHORTEST_TOKEN} characters")
        tokens[role] = token
    if len(set(tokens.values())) < len(tokens):
        raise ValueError("ui.tokens: reader, operator and writer must differ, or every reader could act")
    access = Access(tokens, tuple(map(ipaddress.ip_network, ui.trusted_proxies)), ui.user_header, local_name)
    if access.loopback_only and not is_loopback(host):
        raise ValueError(
            f"ui.host must be a loopback address like 127.0.0.1 without ui.tokens and ui.trusted_proxies, got {host!r}"
        )
    return access


def is_same_site(request: HTTPConnection) -> bool:
    """Return whether a request that changes something comes from a page of this site, or from a program with a token."""
    fetched = request.headers.get("sec-fetch-site")
    if fetched is not None:
        return fetched == "same-origin"
    origin = request.headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc == request.headers.get("host")
    return request.headers.get("authorization", "").lower().startswith("bearer ")


def names_no_site(request: HTTPConnection) -> bool:
    """Return whether it names no site, as programs do; a browser says where a request that changes something is from."""
    return "sec-fetch-site" not in request.headers and "origin" not in request.headers


def _is_local(request: HTTPConnection) -> bool:
    """Return whether it comes from this machine by a name of it: a page elsewhere may have its own name point here."""
    client = request.client.host if request.client else ""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    return is_loopback(client) and is_loopback(host)


def _address(request: HTTPConnection) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return None

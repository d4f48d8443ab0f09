"""Which web addresses may be fetched: spelling first, then every IP address behind the name.

The lists follow the IANA special-purpose registries (RFC 6890 and its updates); the standard
library's `is_global` differs between Python's patch releases.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import httpx

from app.errors import BadInput

_MAX_URL = 2000
_SPLIT = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_NAMES_WITHIN = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "home.arpa")

_BLOCKED_4 = [
    (ipaddress.IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's own service"),
        ("169.254.0.0/16", "link-local or cloud metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved or broadcast"),
    )
]
# Of IPv6 only 2000::/3 is public; the others are named for the message alone.
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_BLOCKED_6 = [
    (ipaddress.IPv6Network(network), what)
    for network, what in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "an IPv4 address inside IPv6"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("2001::/23", "Teredo or reserved"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    )
]


class BlockedAddress(BadInput):
    """An address that is not fetched; the message says why."""


@dataclass(frozen=True, slots=True)
class AddressRules:
    """What an operator permits beyond public addresses on ports 80 and 443.

    A host in `hosts` may lie at a private, loopback or shared address. Link-local, metadata,
    multicast and mapped addresses pass only where a network of `networks` holds them.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    ports: frozenset[int] = frozenset({80, 443})

    @classmethod
    def of(cls, allow: list[str] | tuple[str, ...], ports: tuple[int, ...] = ()) -> AddressRules:
        """Rules of an operator's list: host names, addresses and networks (`10.1.0.0/16`).

        Raises:
            BadInput: An entry that is none of these.
        """
        hosts, networks = set(), []
        for entry in allow:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                host = entry.lower()
                if _looks_numeric(host) or not _is_name(host):
                    raise BadInput(
                        f"{entry!r} cannot be allowed: give a host name, an address or a network"
                    ) from None
                hosts.add(host)
        wrong = [port for port in ports if not 0 < port < 65536]
        if wrong:
            raise BadInput(f"{wrong[0]} is no port: give 1 to 65535")
        return cls(frozenset(hosts), tuple(networks), frozenset({80, 443, *ports}))


@dataclass(frozen=True, slots=True)
class SafeUrl:
    """A well-formed http(s) address without fragment; `host` is lower-case ASCII."""

    text: str
    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def check_url(text: str, rules: AddressRules | None = None) -> SafeUrl:
    """Read an address strictly; with `rules`, refuse ports and hosts that are not permitted.

    Names are not looked up here: what they lead to is checked when the connection is made.

    Raises:
        BlockedAddress: It is malformed, ambiguous, or not permitted.
    """
    shown = repr(text[:120])
    if len(text) > _MAX_URL:
        raise BlockedAddress(f"the address {shown} is longer than {_MAX_URL} characters")
    if "\\" in text or any(c.isspace() or not c.isprintable() for c in text):
        raise BlockedAddress(f"the address {shown} holds a backslash, blank or control character")
    match = _SPLIT.match(text)
    if match is None:
        raise BlockedAddress(f"the address {shown} must start with http:// or https://")
    scheme = match["scheme"].lower()
    if "@" in match["authority"]:
        raise BlockedAddress(f"the address {shown} holds a user name; leave it out")
    parts = _AUTHORITY.fullmatch(match["authority"])
    if parts is None or not parts["host"]:
        raise BlockedAddress(f"the address {shown} has no valid host and port")
    host = _host(parts["host"], shown)
    port = int(parts["port"]) if parts["port"] else {"http": 80, "https": 443}[scheme]
    if not 0 < port < 65536:
        raise BlockedAddress(f"the address {shown} has port {port}, which does not exist")
    url = SafeUrl(_normal(text[match.end() :], scheme, host, port, shown), scheme, host, port)
    if rules is not None:
        _check_permitted(url, rules)
    return url


def refusal_of(address: str, rules: AddressRules, host: str = "") -> str:
    """Why a connection to an IP address is refused; empty where it is permitted.

    `host` is the name that led to it.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "no plain IP address"
    if any(found.version == network.version and found in network for network in rules.networks):
        return ""
    what = _blocked_as(found)
    internal = what in ("private", "loopback", "carrier-grade NAT")
    return "" if internal and host and host in rules.hosts else what


def _blocked_as(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return next((what for network, what in _BLOCKED_4 if address in network), "")
    if getattr(address, "scope_id", None):
        return "bound to one network interface"
    what = next((what for network, what in _BLOCKED_6 if address in network), "")
    return what or ("" if address in _PUBLIC_6 else "reserved")


def _host(raw: str, shown: str) -> str:
    if raw.startswith("["):
        try:
            return str(IPv6Address(raw[1:-1])) if "%" not in raw else _refuse_zone(shown)
        except ValueError as error:
            raise BlockedAddress(f"the address {shown} has a malformed IPv6 host") from error
    if not raw.isascii():
        raw = _from_unicode(raw, shown)
    host = raw.lower()
    if _looks_numeric(host):
        try:
            return str(IPv4Address(host))
        except ValueError as error:
            raise BlockedAddress(
                f"the address {shown} has a number for a host that is no plain a.b.c.d"
            ) from error
    if host.endswith("."):
        raise BlockedAddress(f"the address {shown} has a host that ends with a dot; leave it out")
    if not _is_name(host):
        raise BlockedAddress(f"the address {shown} has a malformed host name")
    return host


def _refuse_zone(shown: str) -> str:
    raise BlockedAddress(f"the address {shown} names a network interface")


def _from_unicode(raw: str, shown: str) -> str:
    # Full-width digits, circled letters and other dots read as something else once resolved.
    if unicodedata.normalize("NFKC", raw).casefold() != raw.casefold():
        raise BlockedAddress(f"the address {shown} has a host spelt with look-alike characters")
    import idna

    try:
        return idna.encode(raw.lower()).decode("ascii")
    except idna.IDNAError as error:
        raise BlockedAddress(f"the address {shown} has a malformed host name") from error


def _looks_numeric(host: str) -> bool:
    """Whether resolvers may read the host as an IPv4 address (WHATWG: it ends in a number)."""
    return bool(_NUMBER.fullmatch(host.rstrip(".").rsplit(".", 1)[-1]))


def _is_name(host: str) -> bool:
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in host.split("."))


def _normal(rest: str, scheme: str, host: str, port: int, shown: str) -> str:
    shown_host = f"[{host}]" if ":" in host else host
    shown_port = "" if port == {"http": 80, "https": 443}[scheme] else f":{port}"
    before_fragment = rest.partition("#")[0]
    if not before_fragment.startswith("/"):
        before_fragment = "/" + before_fragment
    try:
        url = httpx.URL(f"{scheme}://{shown_host}{shown_port}{before_fragment}")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise BlockedAddress(f"the address {shown} is malformed") from error
    if url.raw_host.decode("ascii").strip("[]") != host or (url.port or port) != port:
        raise BlockedAddress(f"the address {shown} can be read in two ways")
    return str(url)


def _check_permitted(url: SafeUrl, rules: AddressRules) -> None:
    if url.port not in rules.ports:
        allowed = ", ".join(str(port) for port in sorted(rules.ports))
        raise BlockedAddress(
            f"port {url.port} of {url.host} is not permitted; permitted: {allowed}"
        )
    if _is_literal(url.host):
        what = refusal_of(url.host, rules)
        if what:
            raise BlockedAddress(f"the address {url.host} is not permitted: it is {what}")
        return
    # Which networks a name leads to is seen at the connection; where some are allowed, internal
    # names must be usable.
    if url.host in rules.hosts or rules.networks:
        return
    inside = "." not in url.host or any(
        url.host == name or url.host.endswith(f".{name}") for name in _NAMES_WITHIN
    )
    if inside:
        raise BlockedAddress(f"the host {url.host!r} is not permitted: it is an internal name")


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

"""Which addresses the server may be sent to by what people type in. Pure: no Django, no I/O.

A webhook's address is chosen by a project's manager, who must not reach through it what only this server can reach:
itself, its neighbours, and the cloud's metadata. What a name resolves to is checked, not the name.
"""

import ipaddress
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL_CHARACTERS = 1000
_PORTS = {"http": 80, "https": 443}
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE = ipaddress.IPv6Network("::/96")
#: Addresses that look public and are a cloud's own: Azure's platform, which hands out secrets to its machines.
_OF_CLOUDS = {ipaddress.ip_address("168.63.129.16")}
#: Metadata of machines in clouds, which are no network of the operator's even where private addresses are allowed.
_METADATA = {ipaddress.ip_address(one) for one in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192")} | _OF_CLOUDS


def parse_url(url: str, *, private: bool) -> tuple[SplitResult, str, int]:
    """The parts of an address that may be told something, its host in ASCII, and its port.

    Args:
        private: plain http is allowed, too.

    Raises:
        ValueError: with a sentence that says what is wrong.
    """
    if len(url) > MAX_URL_CHARACTERS or not url.isprintable() or any(character.isspace() for character in url):
        raise ValueError(f"An address has at most {MAX_URL_CHARACTERS} characters, and no blanks.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("This is no address.") from None
    if parts.scheme != "https" and not (private and parts.scheme == "http"):
        raise ValueError("It must begin with https://.")
    if parts.username is not None or parts.password is not None or parts.fragment or "\\" in url:
        raise ValueError("It must hold no user name, no password, no backslash and no #.")
    host = (parts.hostname or "").rstrip(".")
    if not host or "%" in host or port == 0 or ("[" in parts.netloc and ":" not in host):
        raise ValueError("It names no server.")
    return parts, _in_ascii(host), port or _PORTS[parts.scheme]


def _in_ascii(host: str) -> str:
    if ":" in host:
        return str(ipaddress.IPv6Address(host))
    try:
        named = host.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError("It names no server.") from None
    if not all(character.isalnum() or character in "-._" for character in named):
        raise ValueError("It names no server.")
    return named


def why_refused(address: str, *, private: bool) -> str:
    """Why nothing is sent to this IP address; empty if it may be.

    Args:
        private: networks of the operator's own and this machine are allowed.
    """
    whole = ipaddress.ip_address(address.partition("%")[0])
    for one in (whole, *_within(whole)):
        if reason := _refused(one, private=private):
            return reason
    return ""


def _within(address: Address) -> Iterator[Address]:
    """The IPv4 addresses that an IPv6 address leads on to."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if any(address in network for network in _NAT64) or (address in _COMPATIBLE and int(address) > 1):
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _refused(address: Address, *, private: bool) -> str:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return ""  # what it leads on to is looked at
    if address in _METADATA or address.is_link_local:
        return f"{address} is an address of the machine's own link or of its cloud."
    if address.is_multicast or address.is_unspecified or (address.is_reserved and not address.is_loopback):
        return f"{address} is no address of one server."
    if private:
        return ""
    if address.is_loopback or not address.is_global or getattr(address, "is_site_local", False):
        return f"{address} is a private address."
    return ""

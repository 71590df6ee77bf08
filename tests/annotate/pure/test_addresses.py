"""Which addresses may be sent to: what they are counts, however they are written."""

import pytest

from annotate.addresses import parse_url, why_refused

PRIVATE = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.3.4", "192.168.1.1", "100.64.0.1", "198.18.0.1", "192.0.2.7",
    "::1", "fd12:3456::1", "fc00::1", "2001:db8::1", "fec0::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
    "64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:0a00:0001::1", "2002:7f00:1::", "::7f00:1",
    "2001:0:a00:1:0:0:f5ff:fffe",
]  # fmt: skip
#: No server of anybody's, or the machine's own link and its cloud.
NEVER = [
    "0.0.0.0", "::", "255.255.255.255", "224.0.0.1", "ff02::1", "240.0.0.1", "::ffff:224.0.0.1",
    "169.254.169.254", "169.254.1.1", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "100.100.100.200", "192.0.0.192",
    "168.63.129.16", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
]  # fmt: skip
PUBLIC = ["93.184.215.14", "8.8.8.8", "2606:4700::1111", "2a00:1450:4001::200e"]


@pytest.mark.parametrize("address", PRIVATE + NEVER)
def test_what_only_this_server_reaches_is_refused(address: str) -> None:
    assert why_refused(address, private=False)


@pytest.mark.parametrize("address", NEVER)
def test_some_are_refused_even_where_private_ones_are_allowed(address: str) -> None:
    assert why_refused(address, private=True)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert why_refused(address, private=False) == ""


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1", "fd12::7", "::ffff:127.0.0.1"])
def test_the_operator_can_allow_private_ones(address: str) -> None:
    assert why_refused(address, private=True) == ""


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://example.org/",
        "https://",
        "https:///x",
        "https://user@example.org/",
        "https://user:word@example.org/",
        "https://example.org/#there",
        "https://example.org:99999/",
        "https://example.org:0/",
        "https://exa mple.org/",
        "https://example.org/a\nb",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "example.org",
        "https://exa\\mple.org/",
        "https://" + "a" * 1000,
        "https://a..b/",
        "https://" + "x" * 64 + ".org/",
        "file:///etc/passwd",
        "https://[v1.a]/",
    ],  # fmt: skip
)
def test_odd_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError):
        parse_url(url, private=False)


def test_names_become_ascii_and_ports_are_known() -> None:
    assert parse_url("https://bücher.example/a?b", private=False)[1:] == ("xn--bcher-kva.example", 443)
    assert parse_url("https://[2606:4700::1111]:8443/", private=False)[1:] == ("2606:4700::1111", 8443)
    assert parse_url("http://tea.internal/", private=True)[1:] == ("tea.internal", 80)

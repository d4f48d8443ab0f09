"""Which web addresses may be fetched: spellings, IP ranges, allow lists. No network."""

import ipaddress

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadInput
from app.knowledge.sources.addresses import (
    AddressRules,
    BlockedAddress,
    check_url,
    refusal_of,
)
from app.knowledge.sources.transport import Deadline, GuardedBackend

RULES = AddressRules()


def words(text):
    return text.split()


INTERNAL = words("""
127.0.0.1 127.1.2.3 127.255.255.255 0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 172.16.0.1
172.31.255.255 192.168.0.1 192.168.255.255 169.254.169.254 169.254.0.1 100.64.0.1 100.100.100.200
100.127.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.7
203.0.113.9 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 168.63.129.16
""")
INTERNAL_6 = words("""
:: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:10.0.0.1 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1
0:0:0:0:0:0:0:1 0:0:0:0:0:ffff:127.0.0.1 64:ff9b::127.0.0.1 64:ff9b::a00:1 64:ff9b:1::1
2002:7f00:1:: 2002:a00:1::1 2001:0:7f00:1::1 2001:db8::1 2001:10::1 3fff::1 fc00::1 fd00::1
fd00:ec2::254 fe80::1 feb0::1 fec0::1 ff02::1 ff0e::1 100::1 4000::1 5f00::1 ::ffff:169.254.169.254
""")
NUMBERS = words("""
2130706433 0x7f000001 017700000001 0177.0.0.1 0177.0.0.01 0x7f.0.0.1 0x7f.0x0.0x0.0x1 127.1
127.0.1 127.0.0.1. 127.0.0.01 127.0.0.0x1 00127.0.0.1 0300.0250.0.1 0xc0.0xa8.0.1 3232235521
0xA9FEA9FE 2852039166 0251.0376.0251.0376 169.254.43518 10.1 0 0x0 4294967295 1 256.256.256.256
999.1.1.1 8.8.8.8.8 1.2.3 127.000.000.001 0x 1.2.3.4.
""")
NAMES = words("""
localhost LOCALHOST LocalHost localhost. sub.localhost metadata metadata.google.internal
instance-data.ec2.internal printer.local wiki.corp nas.lan router.home x.home.arpa intranet
db.intranet example.com. -bad.example bad-.example a..b .example.com example..com exa$mple.com
exa'mple.com exam,ple.com exa!mple.com
""")
UNICODE = [
    "１２７.０.０.１", "127。0。0。1", "①②⑦.⓪.⓪.①", "ⓔⓧⓐⓜⓟⓛⓔ.com", "ｌｏｃａｌｈｏｓｔ",
    "localhoſt", "¹²⁷.0.0.1", "127．0．0．1", "example｡com", "\u202eexample.com",
    "exa\u200bmple.com",
    "exa\u00admple.com", "２１３０７０６４３３", "𝟏𝟐𝟕.𝟎.𝟎.𝟏", "℀.com", "%6c%6f%63alhost",
    "127%2e0%2e0%2e1", "example%2ecom", "%31%32%37.0.0.1", "xn--a.\u0000com",
]  # fmt: skip
WHOLE = [
    "", " ", "http://", "https://", "http:///etc/passwd", "http:/example.com", "http:example.com",
    "//example.com", "example.com", "/etc/passwd", "file:///etc/passwd", "file://localhost/etc",
    "ftp://example.com", "gopher://example.com:70/_", "dict://example.com:11211/", "ldap://x.example",
    "javascript:alert(1)", "data:text/html,x", "jar:http://example.com!/", "ws://example.com",
    "unix:/run/docker.sock", "tftp://example.com", "ssh://example.com", "http+unix://x/",
    "httpx://example.com", "h\ttp://example.com", " http://example.com", "http://example.com ",
    "http://example.com\n", "http://exam ple.com", "http://example.com\\@127.0.0.1/",
    "http:\\\\127.0.0.1", "http://127.0.0.1\\example.com", "http://user@example.com",
    "http://user:pw@example.com", "http://example.com@127.0.0.1/", "http://@example.com",
    "http://example.com:80@127.0.0.1/", "http://127.0.0.1#@example.com/", "http://a%40b@example.com",
    "http://example.com:0", "http://example.com:65536", "http://example.com:99999",
    "http://example.com:-1", "http://example.com:8080", "http://example.com:22", "http://example.com:6379",
    "http://example.com:2375", "http://example.com:08080", "http://example.com:x", "http://example.com:８０",
    "http://example.com:80:80", "http://[::1", "http://::1/", "http://[]/", "http://[::1]x/",
    "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1%lo]/", "http://[v1.x]/",
    "http://[127.0.0.1]/", "http://[::ffff:127.0.0.1%25lo]/", "http://[1:2:3]/", "http://[::g]/",
    "http://?x", "http://#x", "http://:80/", "http://example.com\x00.evil/", "http://example.com\x7f/",
    "http://" + "a" * 64 + ".com", "http://" + "a." * 130 + "com",
    "http://example.com/" + "a" * 2000,
]  # fmt: skip


def refused():
    for host in [*INTERNAL, *NUMBERS, *NAMES, *UNICODE]:
        yield f"http://{host}/"
    for host in INTERNAL_6:
        yield f"http://[{host}]/"
    yield from WHOLE
    for host in ("127.0.0.1", "169.254.169.254", "[::1]", "localhost"):
        yield f"https://{host}:443/latest/meta-data"
        yield f"HTTP://{host}/"
        yield f"http://{host}?x=http://example.com"


REFUSED = list(dict.fromkeys(refused()))


def test_there_are_enough_refused_spellings():
    assert len(REFUSED) >= 200


@pytest.mark.parametrize("url", REFUSED, ids=ascii)
def test_is_refused(url):
    with pytest.raises(BlockedAddress):
        check_url(url, RULES)


@pytest.mark.parametrize(
    ("given_url", "host", "port", "text"),
    [
        ("http://example.com", "example.com", 80, "http://example.com/"),
        ("HTTPS://Example.COM/A?b=C#d", "example.com", 443, "https://example.com/A?b=C"),
        ("http://example.com:443/", "example.com", 443, "http://example.com:443/"),
        ("https://example.com:443/x", "example.com", 443, "https://example.com/x"),
        ("http://8.8.8.8/x", "8.8.8.8", 80, "http://8.8.8.8/x"),
        ("http://[2606:4700::1111]/", "2606:4700::1111", 80, "http://[2606:4700::1111]/"),
        ("http://bücher.example/", "xn--bcher-kva.example", 80, "http://xn--bcher-kva.example/"),
        ("http://1und1.example/", "1und1.example", 80, "http://1und1.example/"),
        ("http://a_b.example/", "a_b.example", 80, "http://a_b.example/"),
        ("https://example.com/ä b".replace(" ", "%20"), "example.com", 443,
         "https://example.com/%C3%A4%20b"),
        ("https://example.com?q", "example.com", 443, "https://example.com/?q"),
        ("http://example.com/a@b:c", "example.com", 80, "http://example.com/a@b:c"),
    ],
)  # fmt: skip
def test_public_addresses_pass_and_are_written_in_one_way(given_url, host, port, text):
    url = check_url(given_url, RULES)
    assert (url.host, url.port) == (host, port)
    assert check_url(url.text, RULES) == url
    if not given_url.startswith("http://bücher"):
        assert url.text == text


@given(st.integers(0, 2**32 - 1))
def test_four_byte_addresses_are_never_more_open_than_the_standard_library_says(number):
    address = ipaddress.IPv4Address(number)
    if not refusal_of(str(address), RULES):
        assert address.is_global
        assert not address.is_multicast


@given(st.integers(0, 2**128 - 1))
def test_sixteen_byte_addresses_are_never_more_open_than_the_standard_library_says(number):
    address = ipaddress.IPv6Address(number)
    if not refusal_of(str(address), RULES):
        assert address.is_global
        assert not address.is_multicast
        assert address.ipv4_mapped is None
        assert address.sixtofour is None
        assert address.teredo is None


@given(st.integers(0, 2**32 - 1), st.sampled_from(["::ffff:", "64:ff9b::", "::"]))
def test_no_ipv4_address_hides_in_ipv6(number, prefix):
    assert refusal_of(f"{prefix}{ipaddress.IPv4Address(number)}", RULES)


@given(st.text(max_size=40))
def test_any_text_is_refused_or_reads_the_same_twice(text):
    for candidate in (text, f"http://{text}", f"https://{text}/"):
        try:
            url = check_url(candidate, RULES)
        except BlockedAddress:
            continue
        assert check_url(url.text, RULES) == url
        assert url.host.isascii()


def test_allowed_hosts_networks_and_ports_pass_and_nothing_beside_them():
    rules = AddressRules.of(["wiki.corp", "10.1.0.0/16", "fd12::/32"], (8443,))
    assert check_url("https://wiki.corp:8443/a", rules).port == 8443
    assert check_url("http://10.1.2.3/", rules).host == "10.1.2.3"
    assert check_url("http://[fd12::1]/", rules).host == "fd12::1"
    for url in ("http://10.2.0.1/", "http://[fd13::1]/", "http://example.com:8444/"):
        with pytest.raises(BlockedAddress):
            check_url(url, rules)
    with pytest.raises(BlockedAddress):
        check_url("http://nas.corp/", AddressRules.of(["wiki.corp"]))


def test_an_allowed_name_may_lie_inside_but_not_at_the_metadata_service():
    rules = AddressRules.of(["wiki.corp"])
    assert refusal_of("10.0.0.9", rules, "wiki.corp") == ""
    assert refusal_of("127.0.0.1", rules, "wiki.corp") == ""
    assert refusal_of("169.254.169.254", rules, "wiki.corp")
    assert refusal_of("64:ff9b::a00:9", rules, "wiki.corp")
    assert refusal_of("10.0.0.9", rules, "other.example")
    assert refusal_of("10.0.0.9", rules)


@pytest.mark.parametrize(
    "entry", ["", "10.0.0.1/8", "http://x", "*.corp", "127.1", "0x7f.1", "a b"]
)
def test_what_cannot_be_allowed_is_named(entry):
    with pytest.raises(BadInput, match="allow"):
        AddressRules.of([entry])


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ports_that_do_not_exist_cannot_be_allowed(port):
    with pytest.raises(BadInput, match="port"):
        AddressRules.of([], (port,))


class Network:
    """A resolver that changes its answer with every look-up, and sockets that only take notes."""

    def __init__(self, *answers, fails=()):
        self.answers = list(answers)
        self.fails = fails
        self.looked_up = []
        self.connected = []

    def resolve(self, host, port):
        self.looked_up.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        self.connected.append((host, port))
        if host in self.fails:
            raise httpcore.ConnectError("refused")
        return httpcore.MockStream([])


def backend(network, rules=RULES):
    made = GuardedBackend(rules, network.resolve, Deadline())
    made._plain = network
    return made


def test_a_name_is_looked_up_once_and_the_checked_address_is_connected_to():
    network = Network(["93.184.215.14"], ["127.0.0.1"])
    backend(network).connect_tcp("rebind.example", 80)
    assert network.looked_up == ["rebind.example"]
    assert network.connected == [("93.184.215.14", 80)]


def test_a_name_that_turns_internal_is_refused_at_the_next_connection():
    network = Network(["93.184.215.14"], ["127.0.0.1"])
    guarded = backend(network)
    guarded.connect_tcp("rebind.example", 80)
    with pytest.raises(BlockedAddress, match=r"rebind\.example leads to 127\.0\.0\.1.*loopback"):
        guarded.connect_tcp("rebind.example", 80)
    assert len(network.connected) == 1


@pytest.mark.parametrize("bad", [*INTERNAL, *(a for a in INTERNAL_6), "fe80::1%eth0", "nonsense"])
def test_one_internal_address_among_public_ones_refuses_the_name(bad):
    network = Network(["93.184.215.14", bad, "8.8.8.8"])
    with pytest.raises(BlockedAddress):
        backend(network).connect_tcp("mixed.example", 443)
    assert network.connected == []


def test_the_next_checked_address_is_tried_without_another_look_up():
    network = Network(["93.184.215.14", "8.8.8.8"], fails=("93.184.215.14",))
    backend(network).connect_tcp("two.example", 443)
    assert network.connected == [("93.184.215.14", 443), ("8.8.8.8", 443)]
    assert network.looked_up == ["two.example"]


def test_a_name_without_address_cannot_be_connected_to():
    with pytest.raises(httpcore.ConnectError, match="no address"):
        backend(Network([])).connect_tcp("nothing.example", 80)


def test_a_request_that_is_over_its_time_reads_no_further():
    now = [0.0]
    deadline = Deadline(lambda: now[0])
    deadline.start(60.0)
    assert deadline.limit(10.0) == 10.0
    now[0] = 55.0
    assert deadline.limit(10.0) == 5.0
    now[0] = 60.0
    with pytest.raises(httpcore.ReadTimeout):
        deadline.limit(10.0)

"""Fetching from a real HTTP server on 127.0.0.1, which the allow list permits here."""

import gzip
import socket
import ssl
import subprocess
import threading
import time
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpcore
import pytest

from app.knowledge.sources import (
    AddressRules,
    Fetcher,
    FilesSpec,
    SitemapSpec,
    UrlSpec,
    WebRules,
    collect,
    is_complete,
)
from app.knowledge.sources.fetching import FetchProblem


class Site:
    """Pages by path: bytes, or a function of the request that answers by itself."""

    def __init__(self):
        self.pages = {}
        self.requests = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                site.requests.append((self.path, dict(self.headers), time.monotonic()))
                page = site.pages.get(self.path)
                if callable(page):
                    page(self)
                elif page is None:
                    site.reply(self, 404, b"nothing here")
                else:
                    site.reply(self, 200, page)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def reply(self, handler, status, body, **headers):
        handler.send_response(status)
        headers = {"Content-Type": "text/html", "Content-Length": str(len(body))} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        for name, value in headers.items():
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def answers(self, path, status, body=b"", **headers):
        self.pages[path] = lambda handler: self.reply(handler, status, body, **headers)

    def url(self, path="/", host="site.example"):
        return f"http://{host}:{self.port}{path}"

    def paths(self):
        return [path for path, _, _ in self.requests if path != "/robots.txt"]


@pytest.fixture
def site():
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


@contextmanager
def fetcher_for(site, cache=None, hosts=None, allow=("127.0.0.1",), ports=(), **rules):
    """Every name leads to the test server, unless `hosts` says otherwise."""
    rules = WebRules(AddressRules.of(list(allow), (site.port, *ports)), **{"delay_s": 0.0, **rules})
    looked_up = []

    def resolver(host, port):
        looked_up.append(host)
        found = (hosts or {}).get(host, ["127.0.0.1"])
        return found.pop(0) if found and isinstance(found[0], list) else found

    with Fetcher(rules, cache, resolver=resolver) as fetcher:
        fetcher.looked_up = looked_up
        yield fetcher


def page(*links, text="Words."):
    anchors = "".join(f'<a href="{link}">x</a>' for link in links)
    return f"<html><title>T</title><p>{text}</p>{anchors}</html>".encode()


def crawl(site, tmp_path, path="/", cache=None, **spec):
    with fetcher_for(site, cache) as fetcher:
        return collect([UrlSpec(site.url(path), **spec)], tmp_path / "into", fetcher=fetcher)


def test_one_page_with_host_header_and_no_cookies(site, tmp_path):
    site.pages["/a"] = lambda h: site.reply(h, 200, page("/b"), Set_Cookie="id=1")
    (found,) = crawl(site, tmp_path, "/a#part")
    assert found.external_id == site.url("/a")
    assert found.named
    assert found.name == "a.html"
    assert found.path.read_bytes() == page("/b")
    assert found.metadata["url"] == site.url("/a")
    assert [path for path, _, _ in site.requests] == ["/robots.txt", "/a"]
    for _, headers, _ in site.requests:
        assert headers["Host"] == f"site.example:{site.port}"
        assert "Cookie" not in headers
        assert "TandemBot" in headers["User-Agent"]


@pytest.mark.parametrize(("depth", "expected"), [(0, 1), (1, 3), (2, 4), (3, 5)])
def test_links_are_followed_to_the_depth_asked_for(site, tmp_path, depth, expected):
    site.pages |= {
        "/": page("/b", "/a", "#top", "/pic.png", "http://other.example/x"),
        "/a": page("/c", "/"),
        "/b": page("/a"),
        "/c": page("/d"),
        "/d": page("/e"),
        "/e": page(),
    }
    found = crawl(site, tmp_path, depth=depth)
    assert len(found) == expected
    assert is_complete(found)
    assert len(site.paths()) == expected
    assert [document.named for document in found] == [True] + [False] * (expected - 1)


def test_a_crawl_on_other_hosts_only_when_asked(site, tmp_path):
    site.pages |= {"/": page(site.url("/x", "other.example")), "/x": page()}
    assert len(crawl(site, tmp_path, depth=1)) == 1
    assert len(crawl(site, tmp_path, depth=1, same_host=False)) == 2


def test_a_crawl_that_is_cut_says_that_it_is_not_complete(site, tmp_path):
    site.pages |= {"/": page(*(f"/{n}" for n in range(9)))}
    site.pages |= {f"/{n}": page() for n in range(9)}
    found = crawl(site, tmp_path, depth=1, max_pages=4)
    assert sum(document.path is not None for document in found) == 4
    assert not is_complete(found)
    assert "stopped after 4 pages, 6 were left" in found[-1].problem


def test_what_is_gone_is_deleted_and_what_fails_is_kept(site, tmp_path):
    site.pages["/"] = page("/gone", "/away", "/broken", "/image", "/closed")
    site.pages["/robots.txt"] = b"User-agent: *\nDisallow: /closed"
    site.answers("/away", 410)
    site.answers("/broken", 500)
    site.answers("/image", 200, b"x", Content_Type="image/png")
    found = {d.external_id: d for d in crawl(site, tmp_path, depth=1)}
    for path in ("/gone", "/away"):
        assert found[site.url(path)].deleted
        assert not found[site.url(path)].problem
    assert found[site.url("/broken")].incomplete
    assert "status 500" in found[site.url("/broken")].problem
    for path, said in (("/image", "image/png"), ("/closed", r"robots.txt")):
        assert said in found[site.url(path)].problem
        assert not found[site.url(path)].incomplete
    assert "/closed" not in site.paths()


def test_a_first_page_that_is_gone_proves_nothing_of_the_others(site, tmp_path):
    (found,) = crawl(site, tmp_path, "/nothing", depth=1)
    assert found.deleted
    assert found.named
    assert "does not exist" in found.problem
    assert found.incomplete


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_robots_file_that_cannot_be_read_closes_the_site(site, tmp_path, status):
    site.answers("/robots.txt", status)
    site.pages["/"] = page()
    (found,) = crawl(site, tmp_path)
    assert f"robots.txt answered with status {status}" in found.problem
    assert site.paths() == []


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_site_without_robots_file_is_open(site, tmp_path, status):
    site.answers("/robots.txt", status)
    site.pages["/"] = page()
    assert crawl(site, tmp_path)[0].path


# --- redirects -------------------------------------------------------------------------------


def chain(site, length, end="/end"):
    for step in range(length):
        target = end if step == length - 1 else f"/r{step + 1}"
        site.answers(f"/r{step}", (301, 302, 303, 307, 308)[step % 5], Location=target)
    site.pages["/end"] = page()


@pytest.mark.parametrize("length", [1, 2, 5])
def test_up_to_five_redirects_are_followed_to_the_final_address(site, tmp_path, length):
    chain(site, length)
    (found,) = crawl(site, tmp_path, "/r0")
    assert found.external_id == site.url("/end")
    assert found.path


@pytest.mark.parametrize("length", [6, 9])
def test_more_redirects_are_too_many(site, tmp_path, length):
    chain(site, length)
    (found,) = crawl(site, tmp_path, "/r0")
    assert "redirects more than 5 times" in found.problem
    assert found.external_id == site.url("/r0")


def test_a_loop_ends(site, tmp_path):
    site.answers("/r0", 302, Location="/r0")
    assert "more than 5" in crawl(site, tmp_path, "/r0")[0].problem


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/", "http://[::1]/", "http://10.0.0.1/",
        "http://localhost:22/", "http://0x7f.1/", "http://2130706433/", "file:///etc/passwd",
        "ftp://site.example/", "gopher://site.example/", "http://user:pw@site.example/",
        "http://site.example:22/", "http://site.example:6379/", "//169.254.169.254/x",
        "http://[::ffff:127.0.0.1]/", "http://[fe80::1%25lo]/", "http://１２７.０.０.１/",
        "http://metadata.google.internal./", "http://[64:ff9b::7f00:1]/",
        "http://[/", "\\\\169.254.169.254\\x", "javascript:alert(1)", "",
    ],
    ids=ascii,
)  # fmt: skip
@pytest.mark.parametrize("hops", [0, 3])
def test_every_redirect_is_checked_like_the_first_address(site, tmp_path, target, hops):
    chain(site, hops + 1, end="/turn")
    raw = target.encode("utf-8").decode("latin-1")
    site.answers("/turn", 302, Location=raw)
    (found,) = crawl(site, tmp_path, "/r0")
    assert found.problem
    assert found.path is None
    assert site.paths()[-1] == "/turn"


def test_credentials_and_cookies_never_cross_a_redirect(site, tmp_path):
    site.answers("/a", 302, Location=site.url("/b", "other.example"), Set_Cookie="s=1")
    site.pages["/b"] = page()
    (found,) = crawl(site, tmp_path, "/a")
    assert found.external_id == site.url("/b", "other.example")
    assert not {"Cookie", "Authorization", "Referer"} & set(site.requests[-1][1])


def test_a_linked_page_that_leads_away_is_left_out(site, tmp_path):
    site.pages["/"] = page("/a")
    site.answers("/a", 302, Location=site.url("/b", "other.example"))
    site.pages["/b"] = page()
    found = crawl(site, tmp_path, depth=1)
    assert "leads away to other.example" in found[1].problem
    assert is_complete(found)


# --- where connections go ----------------------------------------------------------------------


def test_without_an_allow_list_the_server_is_never_reached(site, tmp_path):
    with fetcher_for(site, allow=()) as fetcher:
        for host in ("site.example", "127.0.0.1", "[::1]", "localhost"):
            found = collect([UrlSpec(site.url("/", host))], tmp_path, fetcher=fetcher)
            assert "permitted" in found[0].problem or "loopback" in found[0].problem
    assert site.requests == []


@pytest.mark.parametrize(
    "second", ["10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fe80::1%lo", "0.0.0.0"]
)
def test_a_name_that_changes_its_address_is_caught_when_it_connects(site, tmp_path, second):
    site.pages |= {"/": page("/a"), "/a": page()}
    # A closing server makes the second page need a second connection, hence a second look-up.
    for path in ("/", "/robots.txt"):
        body = site.pages.get(path, b"")
        site.answers(path, 200, body, Connection="close")
    hosts = {"rebind.example": [["127.0.0.1"], ["127.0.0.1"], [second]]}
    with fetcher_for(site, hosts=hosts) as fetcher:
        spec = UrlSpec(site.url("/", "rebind.example"), depth=1)
        found = collect([spec], tmp_path, fetcher=fetcher)
    assert found[0].path
    assert "rebind.example leads to" in found[1].problem
    assert len(fetcher.looked_up) == 3
    assert site.paths() == ["/"]


def test_one_forbidden_address_refuses_the_name(site, tmp_path):
    hosts = {"mixed.example": ["127.0.0.1", "10.9.9.9"]}
    with fetcher_for(site, hosts=hosts) as fetcher:
        (found,) = collect([UrlSpec(site.url("/", "mixed.example"))], tmp_path, fetcher=fetcher)
    assert "leads to 10.9.9.9, which is private" in found.problem
    assert site.requests == []


def test_proxies_of_the_environment_are_not_used(site, tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    site.pages["/"] = page()
    assert crawl(site, tmp_path)[0].path


def test_tls_is_made_for_the_name_while_the_socket_goes_to_the_address(tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-keyout", key, "-out", certificate, "-subj", "/CN=tls.example",
         "-addext", "subjectAltName=DNS:tls.example"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no openssl command to make a certificate with")
    site = Site()
    asked = []
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    server.sni_callback = lambda _socket, name, _context: asked.append(name)
    site.server.socket = server.wrap_socket(site.server.socket, server_side=True)
    site.pages["/"] = page()
    trusting = ssl.create_default_context(cafile=str(certificate))
    rules = WebRules(AddressRules.of(["127.0.0.1"], (site.port,)), delay_s=0)
    with Fetcher(rules, resolver=lambda *_: ["127.0.0.1"], ssl_context=trusting) as fetcher:
        assert fetcher.fetch(f"https://tls.example:{site.port}/").body == page()
        with pytest.raises(FetchProblem, match=r"(?i)certificate|hostname"):
            fetcher.fetch(f"https://other.example:{site.port}/")
    assert asked[0] == "tls.example"
    assert site.requests[-1][1]["Host"] == f"tls.example:{site.port}"
    with (
        Fetcher(rules, resolver=lambda *_: ["127.0.0.1"]) as strict,
        pytest.raises(FetchProblem, match=r"(?i)certificate"),
    ):
        strict.fetch(f"https://tls.example:{site.port}/")
    site.server.shutdown()
    site.server.server_close()


def test_https_does_not_turn_into_http():
    with fetcher_for(Site()) as fetcher:

        class Answer:
            status_code = 302
            headers = {"location": "http://site.example/"}  # noqa: RUF012

        with pytest.raises(FetchProblem, match="unencrypted"):
            fetcher._redirect(fetcher.check("https://site.example/"), Answer())


# --- sizes and times ---------------------------------------------------------------------------


def fetch_problem(site, path, **rules):
    with fetcher_for(site, **rules) as fetcher, pytest.raises(FetchProblem) as caught:
        fetcher.fetch(site.url(path))
    return str(caught.value)


def test_bodies_over_the_limit_are_not_read_to_their_end(site):
    sent = []

    def endless(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Connection", "close")
        handler.end_headers()
        try:
            for _ in range(10_000):
                handler.wfile.write(b"x" * 65536)
                sent.append(1)
        except OSError:
            pass

    site.pages["/endless"] = endless
    assert "larger than the limit of 100000" in fetch_problem(site, "/endless", max_bytes=100_000)
    assert len(sent) < 1000
    site.pages["/exact"] = b"<p>" + b"x" * 997
    with fetcher_for(site, max_bytes=1000) as fetcher:
        assert len(fetcher.fetch(site.url("/exact")).body) == 1000
    assert "larger" in fetch_problem(site, "/exact", max_bytes=999)


def test_packed_bodies_are_limited_after_unpacking(site):
    packed = gzip.compress(b"<p>" + b"x" * 50_000_000)
    assert len(packed) < 100_000
    site.answers("/bomb", 200, packed, Content_Encoding="gzip")
    assert "larger than the limit" in fetch_problem(site, "/bomb", max_bytes=1_000_000)
    site.answers("/fine", 200, gzip.compress(page()), Content_Encoding="gzip")
    with fetcher_for(site) as fetcher:
        assert fetcher.fetch(site.url("/fine")).body == page()
    assert site.requests[-1][1]["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("body", "encoding", "said"),
    [
        (zlib.compress(b"x" * 99), "deflate", "not asked for"),
        (b"x", "br", "not asked for"),
        (gzip.compress(gzip.compress(b"x")), "gzip, gzip", "not asked for"),
        (b"no gzip at all", "gzip", "damaged"),
        (gzip.compress(b"x" * 9999)[:-6], "gzip", "does not end"),
        (gzip.compress(b"x") + b"more", "gzip", "does not end"),
    ],
)
def test_bodies_packed_otherwise_or_damaged_are_problems(site, body, encoding, said):
    site.answers("/p", 200, body, Content_Encoding=encoding)
    assert said in fetch_problem(site, "/p")


def test_a_body_that_ends_early_is_a_problem(site):
    def short(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"half")
        handler.close_connection = True

    site.pages["/short"] = short
    assert "could not be fetched" in fetch_problem(site, "/short")


def test_a_server_that_drips_or_hangs_is_left(site):
    stop = threading.Event()

    def drip(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Connection", "close")
        handler.end_headers()
        while not stop.wait(0.05):
            try:
                handler.wfile.write(b"x")
                handler.wfile.flush()
            except OSError:
                return

    site.pages["/drip"] = drip
    site.pages["/hang"] = lambda _handler: stop.wait(30)
    assert "could not be fetched" in fetch_problem(site, "/drip", timeout_s=30, page_s=0.6)
    assert "could not be fetched" in fetch_problem(site, "/hang", timeout_s=0.3)
    stop.set()


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000 + b"\r\n",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"\x00" * 1000],
    ids=["nothing", "nonsense", "headers", "chunks", "nul"],
)  # fmt: skip
def test_a_server_that_speaks_nonsense_is_a_problem(answer):
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with listener:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    port = listener.getsockname()[1]
    rules = WebRules(AddressRules.of(["127.0.0.1"], (port,)), timeout_s=5, delay_s=0)
    with Fetcher(rules) as fetcher, pytest.raises(FetchProblem, match="could not be fetched"):
        fetcher.fetch(f"http://127.0.0.1:{port}/")


def test_nobody_listening_is_a_problem(site, tmp_path):
    port = site.port
    site.server.shutdown()
    site.server.server_close()
    (found,) = crawl(site, tmp_path)
    assert "could not be fetched" in found.problem
    assert found.incomplete
    assert port


def test_a_name_that_cannot_be_looked_up_is_a_problem(site):
    def resolver(host, port):
        raise socket.gaierror("no such name")

    rules = WebRules(AddressRules.of(["127.0.0.1"], (site.port,)))
    with Fetcher(rules, resolver=resolver) as fetcher, pytest.raises(FetchProblem) as caught:
        fetcher.fetch(site.url())
    assert "cannot be looked up" in str(caught.value)


def test_requests_to_one_host_keep_their_distance(site, tmp_path):
    site.pages |= {"/": page("/a", "/b"), "/a": page(), "/b": page()}
    site.pages["/robots.txt"] = b"User-agent: *\nCrawl-delay: 7"
    slept = []
    rules = WebRules(AddressRules.of(["127.0.0.1"], (site.port,)), delay_s=2.0)
    with Fetcher(rules, resolver=lambda *_: ["127.0.0.1"], sleep=slept.append) as fetcher:
        collect([UrlSpec(site.url(), depth=1)], tmp_path, fetcher=fetcher)
    # Between four requests lie three waits; the site asked for a longer one than ours.
    assert len(slept) == 3
    assert all(6 < wait <= 7 for wait in slept)


# --- unchanged ---------------------------------------------------------------------------------


def test_an_unchanged_page_is_not_sent_again_and_its_links_are_still_known(site, tmp_path):
    tags = {"/": '"1"', "/a": '"2"'}
    bodies = {"/": page("/a"), "/a": page(text="One.")}
    downloads = []

    def serve(handler):
        path = handler.path
        if handler.headers.get("If-None-Match") == tags[path]:
            site.reply(handler, 304, b"", Content_Length="0")
            return
        downloads.append(path)
        site.reply(handler, 200, bodies[path], ETag=tags[path])

    site.pages |= {"/": serve, "/a": serve}
    cache = tmp_path / "cache"
    first = crawl(site, tmp_path, depth=1, cache=cache)
    assert not any(document.unchanged for document in first)
    second = crawl(site, tmp_path, depth=1, cache=cache)
    assert [d.external_id for d in second] == [d.external_id for d in first]
    assert all(document.unchanged for document in second)
    assert [d.path.read_bytes() for d in second] == [bodies["/"], bodies["/a"]]
    assert downloads == ["/", "/a"]

    tags["/a"], bodies["/a"] = '"3"', page(text="Two.")
    third = crawl(site, tmp_path, depth=1, cache=cache)
    assert [document.unchanged for document in third] == [True, False]
    assert third[1].path.read_bytes() == bodies["/a"]

    # A damaged memory is no memory: the page is fetched as if for the first time.
    for path in cache.glob("*.body"):
        path.write_bytes(b"damaged")
    fourth = crawl(site, tmp_path, depth=1, cache=cache)
    assert not any(document.unchanged for document in fourth)
    assert fourth[1].path.read_bytes() == bodies["/a"]


def test_last_modified_serves_as_well(site, tmp_path):
    date = "Wed, 21 Oct 2026 07:28:00 GMT"

    def serve(handler):
        if handler.headers.get("If-Modified-Since") == date:
            site.reply(handler, 304, b"", Content_Length="0")
        else:
            site.reply(handler, 200, page(), Last_Modified=date)

    site.pages["/"] = serve
    (first,) = crawl(site, tmp_path, cache=tmp_path / "cache")
    (second,) = crawl(site, tmp_path, cache=tmp_path / "cache")
    assert (first.unchanged, second.unchanged) == (False, True)
    assert second.metadata["last_modified"] == date


def test_a_304_to_a_question_never_asked_is_a_problem(site):
    site.answers("/", 304, Content_Length="0")
    assert "status 304" in fetch_problem(site, "/")


def test_text_in_another_charset_is_kept_as_utf8(site, tmp_path):
    html = "<p>Größe</p>"
    site.answers("/", 200, html.encode("latin-1"), Content_Type="text/html; charset=ISO-8859-1")
    assert crawl(site, tmp_path)[0].path.read_text("utf-8") == html


# --- sitemaps ------------------------------------------------------------------------------------


def sitemap(*addresses, kind="urlset", entry="url"):
    rows = "".join(f"<{entry}><loc> {a} </loc></{entry}>" for a in addresses)
    space = "http://www.sitemaps.org/schemas/sitemap/0.9"
    return f'<?xml version="1.0"?><{kind} xmlns="{space}">{rows}</{kind}>'.encode()


def read_sitemap(site, tmp_path, path="/sitemap.xml", **spec):
    with fetcher_for(site) as fetcher:
        return collect([SitemapSpec(site.url(path), **spec)], tmp_path / "into", fetcher=fetcher)


def test_a_sitemap_index_leads_to_its_pages(site, tmp_path):
    pages = [site.url(f"/p{n}") for n in range(4)]
    site.pages |= {f"/p{n}": page() for n in range(4)}
    index = [site.url("/one.xml"), site.url("/two.xml.gz"), site.url("/three.txt")]
    site.answers("/sitemap.xml", 200, sitemap(*index, kind="sitemapindex", entry="sitemap"),
                 Content_Type="application/xml")  # fmt: skip
    site.answers("/one.xml", 200, sitemap(pages[0], pages[1]), Content_Type="text/xml")
    packed = gzip.compress(sitemap(pages[1], pages[2], "http://other.example/", "ftp://x"))
    site.answers("/two.xml.gz", 200, packed, Content_Type="application/gzip")
    site.answers("/three.txt", 200, f"{pages[3]}\n\n".encode(), Content_Type="text/plain")
    found = read_sitemap(site, tmp_path)
    assert [d.external_id for d in found if d.path] == pages
    (note,) = [d for d in found if not d.path]
    assert "lists 2 addresses" in note.problem
    assert is_complete(found)


def test_a_sitemap_within_its_limit_of_pages(site, tmp_path):
    site.pages |= {f"/p{n}": page() for n in range(5)}
    site.pages["/sitemap.xml"] = sitemap(*(site.url(f"/p{n}") for n in range(5)))
    found = read_sitemap(site, tmp_path, max_pages=3)
    assert sum(d.path is not None for d in found) == 3
    assert not is_complete(found)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><urlset>&e;</urlset>', "entities"),
        (b"<urlset><url>", "no sitemap"),
        (b"<html><body>hello</body></html>", "starts with <html>"),
        (gzip.compress(b"<urlset>" + b" " * 30_000_000), "larger than the limit"),
        (b"\x1f\x8bnonsense", "damaged"),
    ],
)
def test_what_is_no_sitemap_is_told(site, tmp_path, body, said):
    site.answers("/sitemap.xml", 200, body, Content_Type="application/xml")
    (found,) = read_sitemap(site, tmp_path)
    assert said in found.problem
    assert not is_complete([found])


def test_sitemaps_that_name_each_other_end(site, tmp_path):
    both = sitemap(site.url("/sitemap.xml"), site.url("/b.xml"), kind="sitemapindex", entry="s")
    site.pages |= {"/sitemap.xml": both, "/b.xml": both}
    assert read_sitemap(site, tmp_path) == []


def test_two_crawls_that_meet_give_each_page_once(site, tmp_path):
    site.pages |= {"/": page("/a"), "/a": page("/")}
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "x.md").write_text("x")
    specs = [UrlSpec(site.url(), 1), UrlSpec(site.url("/a"), 1), FilesSpec(str(tmp_path / "files"))]
    with fetcher_for(site) as fetcher:
        found = collect(specs, tmp_path / "into", fetcher=fetcher)
    assert [d.external_id for d in found] == [site.url(), site.url("/a"), "x.md"]


def test_the_core_library_still_lets_the_backend_decide_where_to_connect():
    # The guard stands on this parameter; a release that renames it must not pass unseen.
    assert "network_backend" in httpcore.ConnectionPool.__init__.__annotations__

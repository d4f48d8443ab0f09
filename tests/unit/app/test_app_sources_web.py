"""robots.txt, content types, links and the page cache; no network."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.knowledge.sources.content import as_utf8, extension_of, file_name, links_of
from app.knowledge.sources.http_cache import HttpCache
from app.knowledge.sources.robots import Robots, parse_robots

AGENT = "TandemBot"


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        ("", "/", True),
        ("User-agent: *\nDisallow: /", "/x", False),
        ("User-agent: *\nDisallow:", "/x", True),
        ("user-AGENT: *\ndisallow: /a", "/ab", False),
        ("User-agent: *\nDisallow: /a", "/b", True),
        ("User-agent: *\nDisallow: /a\nAllow: /a/b", "/a/b/c", True),
        ("User-agent: *\nAllow: /a/b\nDisallow: /a", "/a/b/c", True),
        ("User-agent: *\nAllow: /a\nDisallow: /a", "/a", True),
        ("User-agent: *\nDisallow: /*.pdf$", "/x/y.pdf", False),
        ("User-agent: *\nDisallow: /*.pdf$", "/x/y.pdf?z", True),
        ("User-agent: *\nDisallow: /*?print", "/x?print=1", False),
        ("User-agent: *\nDisallow: /a*b*c", "/a1b2c3", False),
        ("User-agent: *\nDisallow: /a*b*c", "/a1c2b3", True),
        ("User-agent: *\nDisallow: /a$", "/a", False),
        ("User-agent: *\nDisallow: /a$", "/ab", True),
        ("User-agent: *\nDisallow: /a*a$", "/a", True),
        ("User-agent: *\nDisallow: /%7Ejoe", "/~joe/x", False),
        ("User-agent: *\nDisallow: /~joe", "/%7Ejoe/x", False),
        ("User-agent: *\nDisallow: /ü", "/%C3%BC", False),
        ("User-agent: other\nDisallow: /", "/", True),
        ("User-agent: other\nUser-agent: tandembot\nDisallow: /", "/", False),
        ("User-agent: *\nDisallow: /\n\nUser-agent: tandembot\nAllow: /", "/", True),
        ("User-agent: tandembot\nDisallow: /a\n\nUser-agent: TandemBot\nDisallow: /b", "/b", False),
        ("User-agent: *\nDisallow: /a\nUser-agent: other\nDisallow: /b", "/b", True),
        ("Disallow: /", "/", True),
        ("User-agent: * # all\nDisallow: /a # closed", "/a", False),
        ("User-agent: *\nCrawl-delay: 2\nDisallow: /a", "/a", False),
        ("\ufeff<html>no robots here</html>", "/", True),
    ],
)
def test_robots_rules(text, path, allowed):
    assert parse_robots(text, AGENT).allows(path) is allowed


def test_the_delay_asked_for_is_kept_within_reason():
    assert parse_robots("User-agent: *\nCrawl-delay: 2.5", AGENT).delay_s == 2.5
    assert parse_robots("User-agent: *\nCrawl-delay: 86400", AGENT).delay_s == 30.0
    assert parse_robots("User-agent: *\nCrawl-delay: soon", AGENT).delay_s == 0.0
    assert parse_robots("User-agent: x\nCrawl-delay: 9", AGENT).delay_s == 0.0


@given(st.text("ab*$/", max_size=12), st.text("ab/$", max_size=20))
def test_patterns_match_as_their_regular_expression_does(pattern, path):
    pattern, path = "/" + pattern, "/" + path
    wanted = "".join(
        ".*"
        if char == "*"
        else r"\Z"
        if char == "$" and place == len(pattern) - 1
        else re.escape(char)
        for place, char in enumerate(pattern)
    )
    expected = re.match(wanted, path)
    assert Robots(((pattern, False),)).allows(path) is (expected is None)


def test_a_hostile_pattern_does_not_explode():
    # A backtracking matcher would not end within the test's time limit.
    assert Robots((("/" + "*a" * 5000 + "$", False),)).allows("/" + "a" * 4999 + "b")


@given(st.text(max_size=300))
def test_any_robots_file_can_be_read(text):
    rules = parse_robots(text, AGENT)
    assert rules.allows("/x") in (True, False)
    assert 0 <= rules.delay_s <= 30


@pytest.mark.parametrize(
    ("header", "url", "extension"),
    [
        ("text/html; charset=utf-8", "https://e.example/", ".html"),
        ("TEXT/HTML", "https://e.example/a.php", ".html"),
        ("text/plain", "https://e.example/readme.md", ".md"),
        ("text/plain", "https://e.example/readme.exe", ".txt"),
        ("application/pdf", "https://e.example/get?id=3", ".pdf"),
        ("application/octet-stream", "https://e.example/a.pdf", ".pdf"),
        ("application/octet-stream", "https://e.example/a", None),
        ("", "https://e.example/a", ".html"),
        ("", "https://e.example/a.png", None),
        ("image/png", "https://e.example/a.html", None),
        ("video/mp4", "https://e.example/", None),
        ("nonsense", "https://e.example/", None),
    ],
)
def test_the_kind_of_file_is_told_by_the_server(header, url, extension):
    assert extension_of(header, url) == extension


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://e.example/", "index.html"),
        ("https://e.example/guide/", "guide.html"),
        ("https://e.example/a.html?x=1", "a.html"),
        ("https://e.example/a%2F..%2Fb%00", "b.html"),
        ("https://e.example/" + "a" * 300, "a" * 100 + ".html"),
    ],
)
def test_file_names_are_plain(url, name):
    assert file_name(url, ".html") == name


def test_text_becomes_utf8_by_its_declared_charset():
    assert as_utf8("é".encode("latin-1"), "text/html; charset=ISO-8859-1") == "é".encode()
    assert as_utf8("語".encode("shift_jis"), 'text/plain;charset="Shift_JIS"') == "語".encode()
    assert as_utf8(b"\xff", "text/html; charset=utf-8") == b"\xff"
    for charset in ("zlib", "rot13", "nonsense", "\x00", "idna"):
        assert as_utf8(b"abc", f"text/html; charset={charset}") in (b"abc",)
    assert as_utf8(b"\xe9", "application/pdf; charset=latin-1") == b"\xe9"


def test_links_are_absolute_and_without_fragments():
    page = b"""<html><head><base href="/base/"></head><body>
      <a href="a.html#x">a</a> <a href="/b?c=d">b</a> <a href="//other.example/e">e</a>
      <a href="http://[broken/">f</a> <a href="javascript:x()">g</a> <a href="mailto:a@b.c">h</a>
      <a href="pic.PNG">i</a> <a href="n.html" rel="NoFollow">j</a> <a href="#top">k</a> <a>l</a>
      <map><area href="m.html"></map></body></html>"""
    assert list(links_of(page, "https://e.example/dir/p.html")) == [
        "https://e.example/base/a.html",
        "https://e.example/b?c=d",
        "https://other.example/e",
        "https://e.example/base/",
        "https://e.example/base/m.html",
    ]


@given(st.binary(max_size=300))
def test_links_of_anything_at_all(body):
    for link in links_of(body, "https://e.example/"):
        assert link.lower().startswith(("http://", "https://"))


def test_the_cache_gives_a_page_back_only_whole(tmp_path):
    url = "https://e.example/a"
    cache = HttpCache(tmp_path / "cache")
    assert cache.find(url) is None
    cache.keep(url, "text/html", '"1"', "", b"body")
    found = HttpCache(tmp_path / "cache").find(url)
    assert found.etag == '"1"'
    assert cache.body(url).read_bytes() == b"body"
    cache.body(url).write_bytes(b"bod")
    assert cache.find(url) is None
    cache.keep(url, "text/html", '"2"', "", b"new")
    assert cache.find(url).etag == '"2"'
    for path in (tmp_path / "cache").glob("*.json"):
        path.write_text('{"url": 1}')
    assert cache.find(url) is None

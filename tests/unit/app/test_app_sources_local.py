"""Specifications, files and records; no network, no weights."""

import hashlib
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadInput, NotFound
from app.knowledge.reading import sha256_of
from app.knowledge.sources import (
    FilesSpec,
    FoundDocument,
    GitSpec,
    RecordsSpec,
    SitemapSpec,
    UrlSpec,
    collect,
    is_complete,
    parse_spec,
    reads_this_machine,
    spec_as_dict,
    store,
)
from app.knowledge.sources.records import find_records
from retrieval.parsing import parse_bytes

SPECS = [
    FilesSpec("a/b"),
    UrlSpec("https://example.com/", 2, False, 10),
    SitemapSpec("https://example.com/sitemap.xml"),
    GitSpec("repo", "v1.0", "docs/guide"),
    RecordsSpec("rows.jsonl"),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.kind)
def test_a_spec_survives_being_stored(spec):
    row = spec_as_dict(spec)
    assert parse_spec(row) == spec
    assert parse_spec(json.dumps(row)) == spec
    assert row["kind"] == spec.kind


def test_text_is_a_path_or_a_page():
    assert parse_spec("docs/manual.pdf") == FilesSpec("docs/manual.pdf")
    assert parse_spec("https://example.com/a") == UrlSpec("https://example.com/a")
    assert reads_this_machine(parse_spec("docs"))
    assert not reads_this_machine(parse_spec("https://example.com/"))


@pytest.mark.parametrize(
    ("given_spec", "said"),
    [
        ({"kind": "ftp"}, "files, url, sitemap, git, records"),
        ({}, "valid kinds"),
        ({"kind": ["files"]}, "valid kinds"),
        ({"kind": "files"}, "needs the field 'path'"),
        ({"kind": "files", "path": ""}, "must not be empty"),
        ({"kind": "files", "path": 3}, "must be text"),
        ({"kind": "files", "path": "a\x00b"}, "NUL"),
        ({"kind": "files", "path": "a", "depth": 1}, "no field 'depth'; valid: path"),
        ({"kind": "url", "url": "https://e.example", "depth": 4}, "from 0 to 3"),
        ({"kind": "url", "url": "https://e.example", "depth": True}, "from 0 to 3"),
        ({"kind": "url", "url": "https://e.example", "depth": "1"}, "from 0 to 3"),
        ({"kind": "url", "url": "https://e.example", "max_pages": 0}, "from 1 to"),
        ({"kind": "url", "url": "https://e.example", "same_host": 1}, "true or false"),
        ({"kind": "url", "url": "ftp://e.example"}, "http:// or https://"),
        ({"kind": "url", "url": "https://u:p@e.example"}, "user name"),
        ({"kind": "sitemap", "url": "https://0x7f.1/"}, "number for a host"),
        ({"kind": "git", "path": "r", "ref": "--upload-pack=x"}, "refused"),
        ({"kind": "git", "path": "r", "ref": "a b"}, "refused"),
        ({"kind": "git", "path": "r", "subdir": "../x"}, "inside the repository"),
        ({"kind": "git", "path": "r", "subdir": "/etc"}, "inside the repository"),
        ("{", "no JSON"),
        ("{" * 100_000, "no JSON"),
        ("ftp://example.com/x", "http or https"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_bad_spec_is_told_what_is_wrong(given_spec, said):
    with pytest.raises(BadInput, match=said):
        parse_spec(given_spec)


def test_a_found_document_survives_being_stored(tmp_path):
    for found in (
        FoundDocument("a", "a.md", tmp_path / "a", True, {"x": "y"}, ("g",), "2026-01-01"),
        FoundDocument("b", "", deleted=True, problem="gone", incomplete=True),
    ):
        assert FoundDocument.from_row(json.loads(json.dumps(found.as_row()))) == found


def test_a_stored_document_takes_no_room_for_what_is_as_by_default(tmp_path):
    found = FoundDocument("a.md", "a.md", tmp_path / "a.md")
    assert found.as_row() == {
        "external_id": "a.md",
        "name": "a.md",
        "path": str(tmp_path / "a.md"),
    }
    # Jobs that wait since an earlier version stored every field.
    full = found.as_row() | {"groups": None, "metadata": {}, "valid_from": "", "deleted": False}
    assert FoundDocument.from_row(full) == found


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 16) + 1, 200_000])
def test_the_hash_of_a_file_covers_all_of_it(tmp_path, size):
    content = bytes(i * 31 % 251 for i in range(size))
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


# --- files ---------------------------------------------------------------------------------


def by_id(found):
    made = {document.external_id: document for document in found}
    assert len(made) == len(found)
    return made


def test_a_folder_gives_its_files_but_hidden_ones(tmp_path):
    root = tmp_path / "root"
    (root / "deep" / ".git").mkdir(parents=True)
    for name in ("b.md", "a.md", ".env", "deep/c.txt", "deep/.git/config", "deep/ü ñ.md"):
        (root / name).write_text(name)
    found = collect([FilesSpec(str(root))], tmp_path / "into")
    assert [d.external_id for d in found] == ["a.md", "b.md", "deep/c.txt", "deep/ü ñ.md"]
    assert all(d.path.read_text() == d.external_id and not d.named for d in found)
    assert is_complete(found)


def test_a_file_that_was_named_may_be_hidden(tmp_path):
    (tmp_path / ".notes.md").write_text("x")
    (found,) = collect([FilesSpec(str(tmp_path / ".notes.md"))], tmp_path / "into")
    assert found.named
    assert found.external_id == ".notes.md"


def test_links_that_leave_the_folder_are_problems(tmp_path):
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    (outside / "deep").mkdir(parents=True)
    root.mkdir()
    (outside / "secret.txt").write_text("secret")
    (root / "own.txt").write_text("own")
    (root / "leaves.txt").symlink_to(outside / "secret.txt")
    (root / "folder").symlink_to(outside)
    (root / "stays.txt").symlink_to("own.txt")
    (root / "broken.txt").symlink_to("nowhere")
    (root / "loop.txt").symlink_to("loop.txt")
    os.mkfifo(root / "pipe.txt")
    found = by_id(collect([FilesSpec(str(root))], tmp_path / "into"))
    assert {name for name, d in found.items() if d.path} == {"own.txt", "stays.txt"}
    for name, said in (
        ("leaves.txt", "leaves the folder"),
        ("folder", "leaves the folder"),
        ("broken.txt", "broken link"),
        ("loop.txt", "broken link"),
        ("pipe.txt", "no regular file"),
    ):
        assert said in found[name].problem
    assert not any("secret" in str(document) for document in found.values() if document.path)


def test_a_root_that_is_itself_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.md").write_text("a")
    (tmp_path / "link").symlink_to("real")
    (found,) = collect([FilesSpec(str(tmp_path / "link"))], tmp_path / "into")
    assert found.external_id == "a.md"


def test_names_that_are_not_utf8_are_readable(tmp_path):
    (tmp_path / "root").mkdir()
    with open(os.fsencode(tmp_path / "root") + b"/caf\xe9.txt", "w") as file:
        file.write("x")
    (found,) = collect([FilesSpec(str(tmp_path / "root"))], tmp_path / "into")
    assert found.external_id == "caf�.txt"
    assert found.path.read_text() == "x"


def test_two_sources_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.md").write_text(folder)
    with pytest.raises(BadInput, match=r"two sources are called 'same\.md'"):
        collect([FilesSpec(str(tmp_path / f)) for f in "ab"], tmp_path / "into")


def test_what_does_not_exist_is_not_found(tmp_path):
    for spec in (FilesSpec("nowhere"), RecordsSpec("nowhere.jsonl")):
        with pytest.raises(NotFound, match="nowhere"):
            collect([spec], tmp_path)


# --- records -------------------------------------------------------------------------------


def write_records(tmp_path, *lines):
    path = tmp_path / "rows.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", "utf-8", errors="surrogatepass")
    return RecordsSpec(str(path))


def test_records_become_files_with_their_title_inside(tmp_path):
    spec = write_records(
        tmp_path,
        {"id": "a/1 ü", "text": "Plain words.", "title": "First", "url": "https://example.com/1"},
        {"id": "b", "markdown": "# Head\n\nBody.", "title": "Second: it", "groups": ["hr", "hr"]},
        "",
        {"id": "c", "html": "<p>Page.</p>", "title": "A < B", "valid_from": "2026-03-01"},
        {"id": "d", "deleted": True},
        {"id": "e", "text": "x", "valid_from": "2026-03-01T02:00:00+02:00", "groups": []},
    )
    found = by_id(collect([spec], tmp_path / "into"))
    parsed = {k: parse_bytes(d.path.read_bytes(), d.name) for k, d in found.items() if d.path}
    assert [parsed[k].title for k in "bc"] == ["Second: it", "A < B"]
    assert parsed["a/1 ü"].text == "First\n\nPlain words."
    assert "Page." in parsed["c"].text
    assert found["a/1 ü"].metadata == {"title": "First", "url": "https://example.com/1"}
    assert found["a/1 ü"].groups is None
    assert found["b"].groups == ("hr",)
    assert found["e"].groups == ()
    assert found["c"].valid_from == found["e"].valid_from == "2026-03-01T00:00:00+00:00"
    assert found["d"].deleted
    assert found["d"].path is None
    assert all(d.path.parent == tmp_path / "into" for d in found.values() if d.path)
    assert is_complete(list(found.values()))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "no JSON"),
        ("[1]", "holds a list"),
        ('"text"', "holds a str"),
        ("null", "holds a NoneType"),
        ("[" * 100_000, "no JSON"),
        ('{"id": ' + "9" * 5000 + "}", "no JSON"),
        ('{"id": "a", "id": "b", "text": "x"}', "twice"),
        ({"text": "x"}, "needs an 'id'"),
        ({"id": 7, "text": "x"}, "needs an 'id'"),
        ({"id": "", "text": "x"}, "needs an 'id'"),
        ({"id": " a", "text": "x"}, "needs an 'id'"),
        ({"id": "a\nb", "text": "x"}, "needs an 'id'"),
        ({"id": "a" * 501, "text": "x"}, "needs an 'id'"),
        ({"id": "\ud800", "text": "x"}, "needs an 'id'"),
        ({"id": "a"}, "exactly one of text, markdown, html, not 0"),
        ({"id": "a", "text": "x", "html": "y"}, "not 2"),
        ({"id": "a", "text": "  \n"}, "no text in 'text'"),
        ({"id": "a", "text": ["x"]}, "no text in 'text'"),
        ({"id": "a", "text": "x \ud800"}, "surrogate"),
        ({"id": "a", "text": "x", "grups": ["hr"]}, "unknown field 'grups'"),
        ({"id": "a", "text": "x", "groups": "hr"}, "'groups'"),
        ({"id": "a", "text": "x", "groups": [1]}, "'groups'"),
        ({"id": "a", "text": "x", "groups": [""]}, "'groups'"),
        ({"id": "a", "text": "x", "title": 5}, "'title'"),
        ({"id": "a", "text": "x", "title": "a\x1bb"}, "control"),
        ({"id": "a", "text": "x", "url": "u" * 2001}, "'url'"),
        ({"id": "a", "text": "x", "valid_from": "soon"}, "ISO date"),
        ({"id": "a", "text": "x", "valid_from": 5}, "ISO date"),
        ({"id": "a", "text": "x", "valid_from": "0001-01-01T00:00:00+14:00"}, "out of range"),
        ({"id": "a", "text": "x", "deleted": "yes"}, "valid: true, false"),
        ({"id": "a", "deleted": 1}, "valid: true, false"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_bad_line_is_a_problem_with_its_number_and_the_others_stay(tmp_path, line, said):
    good = {"id": "good", "text": "fine"}, {"id": "later", "text": "fine"}
    found = collect([write_records(tmp_path, good[0], line, good[1])], tmp_path / "into")
    assert {d.external_id for d in found if d.path} == {"good", "later"}
    (bad,) = [d for d in found if not d.path]
    assert "rows.jsonl line 2" in bad.problem
    assert said in bad.problem
    # A line whose id is known keeps the document; any other may hide one.
    assert bad.external_id == "a" or bad.incomplete


def test_an_id_that_comes_twice_is_told_and_the_first_counts(tmp_path):
    spec = write_records(tmp_path, {"id": "a", "text": "one"}, {"id": "a", "text": "two"})
    found = collect([spec], tmp_path / "into")
    assert [d.path.read_text() for d in found if d.path] == ["one"]
    assert "line 2 repeats the id 'a' of line 1" in found[1].problem
    assert is_complete(found)


def test_bytes_that_are_no_text_are_a_problem(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": "a", "text": "x"}\r\n{"id": "b", "text": "\xe9"}\n')
    found = collect([RecordsSpec(str(path))], tmp_path / "into")
    assert [d.external_id for d in found if d.path] == ["a"]
    assert "line 2 is not UTF-8" in found[1].problem


@given(st.lists(st.integers(0, 60), max_size=8), st.booleans())
def test_lines_over_the_limit_are_passed_over_and_the_numbers_stay_right(
    tmp_path_factory, lengths, ends
):
    folder = tmp_path_factory.mktemp("long")
    base = len(json.dumps({"id": "00", "text": "x"}))
    limit = base + 20
    rows = [{"id": f"{n:02}", "text": "x" * (1 + extra)} for n, extra in enumerate(lengths)]
    text = "\n".join(map(json.dumps, rows)) + ("\n" if ends else "")
    (folder / "r.jsonl").write_text(text)
    spec = RecordsSpec(str(folder / "r.jsonl"))
    found = list(find_records(spec, folder, max_line_bytes=limit))
    assert len(found) == len(rows)
    for number, (extra, document) in enumerate(zip(lengths, found, strict=True), start=1):
        if extra <= 20:
            assert document.path
        else:
            assert f"line {number} is longer" in document.problem
            assert document.incomplete


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=500))
def test_any_printable_id_keeps_its_spelling_and_no_id_becomes_a_path(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("ids")
    (found,) = find_records(write_records(folder, {"id": name, "text": "x"}), folder)
    if name.isprintable() and name == name.strip():
        assert found.external_id == name
        assert found.path.parent == folder
        assert found.path.name.removesuffix(".txt").isalnum()
    else:
        assert "needs an 'id'" in found.problem


def test_a_repeated_run_writes_the_same_files(tmp_path):
    spec = write_records(tmp_path, {"id": "a", "text": "x"}, {"id": "b", "text": "y"})
    first = collect([spec], tmp_path / "into")
    second = collect([spec], tmp_path / "into")
    assert first == second
    assert len(list((tmp_path / "into").iterdir())) == 2


def test_names_longer_than_names_may_be_are_problems(tmp_path):
    deep = tmp_path / "root" / ("a" * 200) / ("b" * 200) / ("c" * 200)
    deep.mkdir(parents=True)
    (deep / "x.md").write_text("x")
    (found,) = collect([FilesSpec(str(tmp_path / "root"))], tmp_path / "into")
    assert "over 500 characters" in found.problem
    assert len(found.external_id) <= 500


def test_files_are_flushed_one_by_one_where_the_system_cannot_flush_a_folder(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(store, "_syncfs", None)
    monkeypatch.setattr(store.os, "fsync", lambda handle: flushed.append(os.fstat(handle).st_ino))
    spec = write_records(tmp_path, {"id": "a", "text": "x"}, {"id": "b", "text": "y"})
    found = collect([spec], tmp_path / "into")
    assert {d.path.stat().st_ino for d in found} < set(flushed)


def test_a_disk_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_syncfs", lambda _handle: -1)
    with pytest.raises(OSError, match="on disk"):
        collect([write_records(tmp_path, {"id": "a", "text": "x"})], tmp_path / "into")

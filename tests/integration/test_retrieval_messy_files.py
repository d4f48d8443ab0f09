"""Every real messy file through the sandbox: read, with known text found, or refused."""

import os
from pathlib import Path

import pytest

from retrieval.errors import BrokenEncoding, DocumentError, UnsupportedFormat
from retrieval.parsing import parse_bytes, parse_file

ROOT = Path(__file__).resolve().parents[2]

# What a person sees who opens the file: (kind of block, text in one block of that kind).
KNOWN = {
    "test.docx": [
        ("heading", "Abstract"),
        ("heading", "d666f1f7-46cb-42bd-9a39-9a39cf2a509f"),
        ("paragraph", "AutoGen is an open-source framework"),
        ("table", "1 | 2 | 3 | 4 | 5 | 6\n7 | 8 | 9 | 10 | 11 | 12"),
        ("table", "49e168b7-d2ae-407f-a055-2167576f39a1"),
    ],
    "equations.docx": [("paragraph", "From Eq. 36.1.3"), ("paragraph", "sinθ=mλ/a")],
    "rlink.docx": [("paragraph", "Testing Linked Images")],
    "test.pptx": [
        ("heading", "AutoGen: Enabling Next-Gen LLM Applications via Multi-Agent Conversation"),
        ("heading", "2cdda5c8-e50e-4db4-b5f0-9722a649f455"),
        ("table", "1b92870d-e3b5-4e65-8153-919f4ff45592"),
        ("paragraph", "a3f6004b-6f4f-4ea8-bee3-3741f4dc385f"),
        ("table", "2003 | 2003"),
        ("list_item", "Sub comment 2"),
    ],
    "test.xlsx": [
        ("heading", "09060124-b5e7-4717-9d07-3c046eb"),
        ("table", "Alpha | Beta | Gamma | Delta\n89 | 82 | 100 | 12"),
        ("table", "6ff4173b-42a5-4784-9b19-f49caff4d93d"),
        ("table", "affc7dad-52dc-4b98-9b5d-51e65d8a8ad0"),
    ],
    "test.xls": [
        ("heading", "09060124-b5e7-4717-9d07-3c046eb"),
        ("table", "Alpha | Beta | Gamma | Delta\n89 | 82 | 100 | 12"),
        ("table", "affc7dad-52dc-4b98-9b5d-51e65d8a8ad0"),
    ],
    "test.epub": [
        ("heading", "Chapter 1: Test Content"),
        ("list_item", "- Another point"),
        ("heading", "Chapter 2: More Content"),
        ("paragraph", "This is a blockquote for testing."),
    ],
    "test_rss.xml": [
        ("heading", "The Official Microsoft Blog"),
        ("heading", "Ignite 2024: Why nearly 70% of the Fortune 500 now use Microsoft 365 Copilot"),
        ("paragraph", "Published: 2024-11-19T13:30:02+00:00"),
        ("paragraph", "In the case of AI, it is absolutely true that the industry is moving"),
        ("list_item", "Eaton leveraged Microsoft 365 Copilot"),
    ],
    "test_notebook.ipynb": [
        ("heading", "Test Notebook"),
        ("code", 'print("markitdown")'),
        ("paragraph", "markitdown"),
        ("heading", "Code Cell Below"),
        ("paragraph", "42"),
    ],
    "test.json": [
        ("paragraph", "key2: 1234"),
        ("paragraph", "5b64c88c-b3c3-4510-bcb8-da0b200602d8: uuid_key"),
        ("paragraph", "9700dc99-6685-40b4-9a3a-5e406dcb37f3"),
    ],
}
TITLES = {
    "test.epub": "Test EPUB Document",
    "test_notebook.ipynb": "Test Notebook Title",
    "test_rss.xml": "The Official Microsoft Blog",
    "test.xls": "test",
}
MAY_BE_REFUSED = {
    ".bin": UnsupportedFormat,
    ".csv": BrokenEncoding,
    ".msg": UnsupportedFormat,
}


def messy_folder() -> Path:
    folder = Path(os.environ.get("TANDEM_DATA", ROOT.parent / "shared" / "data")) / "messy_files"
    if not folder.is_dir():
        pytest.skip("no shared data: set TANDEM_DATA to its folder")
    return folder


def test_every_messy_file_is_read_or_refused_with_a_reason():
    read = 0
    for path in sorted(p for p in messy_folder().rglob("*") if p.is_file()):
        try:
            document = parse_file(path)
        except DocumentError as error:
            expected = MAY_BE_REFUSED.get(path.suffix)
            assert expected is not None, f"{path.name} was refused: {error}"  # noqa: PT017
            assert isinstance(error, expected)  # noqa: PT017
            assert path.name in str(error)  # noqa: PT017
            continue
        read += 1
        assert document.text.strip(), path.name
        assert document.blocks, path.name
        assert document.title, path.name
        assert all(document.text[b.start : b.end] == b.text for b in document.blocks), path.name
    assert read >= 20


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_text_is_found_through_the_sandbox(name):
    path = messy_folder() / "markitdown" / name
    document = parse_file(path)
    for kind, text in KNOWN[name]:
        found = [b.text for b in document.blocks if b.kind == kind]
        assert any(text in block for block in found), (kind, text)
    assert document.title == TITLES.get(name, document.title)
    assert document == parse_bytes(path.read_bytes(), name)


def test_random_bytes_are_refused_as_what_they_are():
    path = messy_folder() / "markitdown" / "random.bin"
    for name in ("random.bin", "random.docx", "random.csv", "random.json", "random"):
        with pytest.raises(DocumentError, match="random"):
            parse_file(path, name=name)


def test_a_real_workbook_under_a_wrong_name_is_refused():
    folder = messy_folder() / "markitdown"
    with pytest.raises(UnsupportedFormat, match=r"rename it to \.xlsx"):
        parse_file(folder / "test.xlsx", name="test.docx")
    with pytest.raises(UnsupportedFormat, match=r"rename it to \.xls"):
        parse_file(folder / "test.xls", name="test.xlsx")

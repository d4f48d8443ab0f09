"""What people type as sources and periods."""

import pytest

from app.cli.commands_sync import seconds, source
from app.errors import BadInput


@pytest.mark.parametrize(
    ("text", "expected"), [("30s", 30), ("15m", 900), ("1h", 3600), ("2 d", 172800), ("never", 0)]
)
def test_periods(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "1", "h", "1w", "-1h", "1.5h"])
def test_other_periods_are_refused_with_the_valid_forms(text):
    with pytest.raises(BadInput, match="30s, 15m"):
        seconds(text)


def test_paths_become_absolute_and_addresses_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert source("docs") == {"kind": "files", "path": str(tmp_path / "docs")}
    assert source("https://example.com/a") == "https://example.com/a"
    assert source('{"kind": "git", "path": "x"}') == '{"kind": "git", "path": "x"}'

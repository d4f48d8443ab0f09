"""The commands around evaluations that need no service: samples and the gate."""

import json

import numpy as np
import pytest

from app.cli import main as cli
from evals.regression import write_scores
from evals.samples import load_samples
from evals.scoring import ScoreTable


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TANDEM_ROOT", str(tmp_path / "home"))
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["tandem", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli()
        shown = capsys.readouterr()
        return ended.value.code, shown.out, shown.err

    return call


def scores(folder, share, n=200):
    column = (np.arange(n) % 100 < 100 * share).astype(float)
    table = ScoreTable(
        tuple(f"q{i}" for i in range(n)),
        np.arange(n),
        ("hybrid",),
        frozenset(),
        {"hybrid": {"token_f1": column}},
    )
    folder.mkdir()
    (folder / "scores.json").write_text(write_scores(table, "token_f1", "x"))
    return folder


def test_the_gate_fails_a_build_and_leaves_files(run, tmp_path, monkeypatch):
    old, new = scores(tmp_path / "old", 0.9), scores(tmp_path / "new", 0.5)
    page = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    files = ["--baseline", old, "--current", new, "--junit", tmp_path / "out" / "gate.xml"]
    code, out, _ = run("eval", "gate", *files, "--json")
    assert code == 1
    assert json.loads(out)["passed"] is False
    assert "failures=" in (tmp_path / "out" / "gate.xml").read_text()
    assert "**failed**" in page.read_text()
    code, out, _ = run("eval", "gate", "--baseline", new, "--current", old)
    assert code == 0
    assert "pass" in out


def test_a_missed_floor_fails_and_a_wrong_one_is_explained(run, tmp_path):
    folder = scores(tmp_path / "a", 0.5)
    both = ["--baseline", folder, "--current", folder]
    assert run("eval", "gate", *both, "--floor", "token_f1=0.9")[0] == 1
    assert run("eval", "gate", *both, "--floor", "token_f1=0.2")[0] == 0
    code, _, err = run("eval", "gate", *both, "--floor", "token_f1")
    assert code == 1
    assert "metric=value" in err


def test_samples_are_made_of_an_faq(run, tmp_path):
    faq = tmp_path / "faq.csv"
    rows = ["question,answer", "How long are refunds?,14 days", "How long is a refund?,14 days"]
    faq.write_text("\n".join(rows))
    target = tmp_path / "made" / "samples.jsonl"
    code, out, _ = run("eval", "samples", "--from", faq, "--out", target, "--json")
    assert code == 0
    assert json.loads(out)["clusters"] == 1
    assert [s.answers for s in load_samples(target)] == [("14 days",)] * 2
    code, _, err = run("eval", "samples", "--out", target)
    assert code == 1
    assert "--corrections" in err


def test_a_run_needs_samples_or_a_manifest(run, tmp_path):
    code, _, err = run("eval", "run", "support")
    assert code == 1
    assert "--manifest FILE" in err
    other = tmp_path / "x.json"
    other.write_text("{}")
    code, _, err = run("eval", "run", "--manifest", other)
    assert code == 1
    assert "is not the manifest.json of an evaluation" in err

import copy
import random

import pytest

from tuning.errors import SnapshotError
from tuning.snapshot import load, seal, validate_row, verify


def test_the_same_rows_in_any_order_give_the_same_id(tmp_path, rows):
    shuffled = [dict(reversed(row.items())) for row in rows]
    random.Random(1).shuffle(shuffled)
    assert seal(rows, tmp_path / "a").id == seal(shuffled, tmp_path / "b").id


def test_one_changed_character_gives_another_id(tmp_path, rows):
    first = seal(rows, tmp_path / "a").id
    rows[0]["answer"] += "."
    assert seal(rows, tmp_path / "b").id != first


def test_rows_come_back_as_they_went_in(tmp_path, rows):
    rows[0]["question"] = 'line\nbreak, "quotes", \u2028, emoji \U0001f600'
    seal(rows, tmp_path / "s", provenance={"use_case": "fees"})
    snapshot = load(tmp_path / "s")
    assert sorted(snapshot.rows, key=lambda r: r["id"]) == sorted(rows, key=lambda r: r["id"])
    assert snapshot.manifest.provenance == {"use_case": "fees"}
    assert snapshot.manifest.counts["train"] == {"grounded": 3, "style": 3, "abstain": 3}
    assert len(snapshot.split("dev")) == 3


def test_any_flipped_byte_is_found(tmp_path, rows):
    folder = tmp_path / "s"
    seal(rows, folder)
    rng = random.Random(0)
    for name in ("rows.jsonl", "manifest.json"):
        whole = (folder / name).read_bytes()
        for position in rng.sample(range(len(whole)), 60):
            damaged = bytearray(whole)
            damaged[position] ^= 1
            (folder / name).write_bytes(damaged)
            with pytest.raises(SnapshotError):
                verify(folder)
        (folder / name).write_bytes(whole)
    verify(folder)


@pytest.mark.parametrize("name", ["rows.jsonl", "manifest.json"])
def test_a_truncated_or_missing_file_is_found(tmp_path, rows, name):
    folder = tmp_path / "s"
    seal(rows, folder)
    path = folder / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(SnapshotError, match=r"changed|damaged"):
        verify(folder)
    path.unlink()
    with pytest.raises(SnapshotError, match=f"has no {name}"):
        verify(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "chat"}, "kind must be one of"),
        ({"split": "eval"}, "split must be one of"),
        ({"question": " "}, "no text 'question'"),
        ({"gold": []}, "needs a gold passage"),
        ({"distractors": [{"id": "x"}]}, "needs texts id, title, text"),
        ({"answer": "{cite} {cite}"}, "more than once"),
        ({"kind": "style"}, "has no gold passage"),
        ({"history": [{"role": "system", "content": "x"}]}, "history turns"),
    ],
)
def test_a_malformed_row_is_refused(rows, change, reason):
    with pytest.raises(SnapshotError, match=reason):
        validate_row({**rows[0], **change})


def test_an_abstain_row_must_say_the_abstention_sentence(rows):
    with pytest.raises(SnapshotError, match="must start with"):
        validate_row({**rows[2], "answer": "Dunno."})


def test_repeated_ids_and_torn_components_are_refused(tmp_path, rows):
    twice = [*rows, copy.deepcopy(rows[0])]
    with pytest.raises(SnapshotError, match="more than once"):
        seal(twice, tmp_path / "a")
    rows[0]["component"] = rows[-1]["component"]
    with pytest.raises(SnapshotError, match="in both"):
        seal(rows, tmp_path / "b")
    assert not (tmp_path / "a").exists()
    assert list(tmp_path.iterdir()) == []


def test_gold_shared_between_train_and_dev_shows_in_the_audit(tmp_path, rows):
    rows[9]["gold"] = rows[0]["gold"]
    manifest = seal(rows, tmp_path / "s")
    assert manifest.audit["gold_passages_in_train_and_held_out"] == 1

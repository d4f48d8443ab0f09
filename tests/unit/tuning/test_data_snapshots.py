"""Signed snapshots with pairs and ratings, their diff, row variants, and the recall probe."""

import random

import pytest

from tuning.builder import DrawConfig, build_rows, draw, least_tokens
from tuning.errors import SnapshotError, TuneConfigError
from tuning.recall_probe import closed_book_recall, probe_rows
from tuning.snapshot import (
    Extras,
    load,
    load_findings,
    load_pairs,
    load_ratings,
    seal,
    verify,
)
from tuning.snapshot_diff import diff
from tuning.snapshot_rows import validate_row
from tuning.splits import SplitItem, assign_splits

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
MESSAGES = [{"role": "user", "content": "Price?"}]
PAIR = {"messages": MESSAGES, "chosen": "49 euros [1]", "rejected": "59 euros [1]"}
RATING = {"messages": MESSAGES, "completion": "49 euros [1]", "label": True}
EXTRAS = Extras(
    pairs=(PAIR,),
    ratings=(RATING,),
    findings=({"id": "row-0", "score": 1.0, "findings": []},),
    quality={"mean_score": 1.0},
)


def test_pairs_and_ratings_come_back_as_they_were(tmp_path, rows):
    manifest = seal(rows, tmp_path / "s", extras=EXTRAS, key=KEY)
    assert load_pairs(tmp_path / "s") == (PAIR,)
    assert load_ratings(tmp_path / "s") == (RATING,)
    assert load_findings(tmp_path / "s")[0]["id"] == "row-0"
    assert verify(tmp_path / "s", key=KEY) == manifest
    plain = seal(rows, tmp_path / "plain")
    assert load_pairs(tmp_path / "plain") == ()
    assert plain.id != manifest.id
    assert plain.id == plain.files["rows.jsonl"]


def test_a_signature_of_another_installation_is_refused(tmp_path, rows):
    seal(rows, tmp_path / "s", key=KEY)
    with pytest.raises(SnapshotError, match="this installation's key"):
        verify(tmp_path / "s", key=OTHER_KEY)
    seal(rows, tmp_path / "unsigned")
    with pytest.raises(SnapshotError, match="this installation's key"):
        verify(tmp_path / "unsigned", key=KEY)


def test_a_planted_file_is_found(tmp_path, rows):
    seal(rows, tmp_path / "s", key=KEY)
    (tmp_path / "s" / "pairs.jsonl").write_text('{"messages": [], "chosen": "", "rejected": ""}')
    with pytest.raises(SnapshotError, match=r"pairs\.jsonl of .* was added"):
        verify(tmp_path / "s", key=KEY)


def test_every_flipped_bit_is_found(tmp_path, rows):
    seal(rows, tmp_path / "s", extras=EXTRAS, key=KEY)
    files = sorted((tmp_path / "s").iterdir())
    assert len(files) == 5
    rng = random.Random(1)
    for turn in range(60):
        file = files[turn % len(files)]
        whole = file.read_bytes()
        at = rng.randrange(len(whole))
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
        with pytest.raises(SnapshotError):
            verify(tmp_path / "s")
        file.write_bytes(whole)
    verify(tmp_path / "s", key=KEY)
    files[0].unlink()
    with pytest.raises(SnapshotError):
        verify(tmp_path / "s")


def test_snapshots_of_the_first_schema_still_verify(tmp_path, rows):
    """A manifest as it was written before signatures, made again byte by byte."""
    import hashlib
    import json
    from dataclasses import asdict

    from tuning.atomic import canonical_json

    manifest = seal(rows, tmp_path / "s")
    record = asdict(manifest) | {"schema": 1}
    for name in ("files", "quality", "signature"):
        del record[name]
    record["manifest_sha256"] = hashlib.sha256(canonical_json(record).encode()).hexdigest()
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (tmp_path / "s" / "manifest.json").write_text(text, "utf-8")
    assert verify(tmp_path / "s", key=KEY).id == manifest.id
    assert len(load(tmp_path / "s").rows) == len(rows)


def test_diff_names_added_removed_changed_and_moved_rows(tmp_path, rows):
    seal(rows, tmp_path / "a")
    rows[0] = rows[0] | {"answer": "free"}
    rows[-1] = rows[-1] | {"split": "test"}
    seal([*rows[:-2], rows[-1], rows[2] | {"id": "new", "component": "new"}], tmp_path / "b")
    found = diff(tmp_path / "a", tmp_path / "b")
    assert (found.added, found.removed) == (("new",), ("row-10",))
    assert [(row.id, row.fields) for row in found.changed] == [("row-0", ("answer",))]
    assert found.moved == {"dev > test": 1}
    assert found.held_out_to_train == ()
    assert diff(tmp_path / "b", tmp_path / "a").removed == ("new",)
    assert diff(tmp_path / "a", tmp_path / "a").identical


def test_a_held_out_row_that_trains_later_shows_in_the_diff(tmp_path, rows):
    rows[0] = rows[0] | {"split": "test"}
    seal(rows, tmp_path / "a")
    rows[0] = rows[0] | {"split": "train"}
    seal(rows, tmp_path / "b")
    assert diff(tmp_path / "a", tmp_path / "b").held_out_to_train == ("row-0",)


def priced(**changes):
    row = {
        "id": "r",
        "question": "What does the Ripple plan cost?",
        "answer": "It costs 49 euros a month {cite}.",
        "kind": "grounded",
        "gold": [
            {
                "id": "g",
                "title": "Plans",
                "text": "The Ripple plan costs 49 euros a month.",
                "valid_from": "2025-03-01",
            }
        ],
        "distractors": [{"id": "d", "title": "Other", "text": "A helmet costs 80 euros."}],
        "outdated": [
            {
                "id": "o",
                "title": "Plans",
                "text": "The Ripple plan costs 39 euros a month.",
                "valid_from": "2024-01-01",
            }
        ],
        "component": "c",
        "split": "train",
    }
    return row | changes


def test_a_swapped_value_stands_in_passage_and_answer(tokenizer):
    config = DrawConfig(p_value_swap=1.0, p_no_gold=0.5)
    seen = set()
    for epoch in range(20):
        drawn = draw(priced(), config, seed=0, epoch=epoch)
        value = drawn.answer.split()[2]
        assert drawn.variant == "value_swap"
        assert drawn.kind == "grounded"
        assert f"The Ripple plan costs {value} euros a month." in drawn.messages[-1]["content"]
        assert "49" not in drawn.messages[-1]["content"] + drawn.target
        seen.add(value)
    assert len(seen) > 5
    built = build_rows([priced()], tokenizer, config, seed=0, epoch=0)
    assert built.counts["variant_value_swap"] == 1


def test_a_swapped_value_is_swapped_in_distractors_too():
    same = "Prices: the Ripple plan costs 49 euros, the helmet 80 euros; article 4900."
    distractors = [{"id": "d", "title": "Ripple at 49", "text": same}]
    config = DrawConfig(p_value_swap=1.0, p_no_gold=0.0, p_gold_only=0.0)
    for epoch in range(10):
        drawn = draw(priced(distractors=distractors), config, seed=0, epoch=epoch)
        value = drawn.answer.split()[2]
        shown = drawn.messages[-1]["content"]
        assert f"Ripple at {value}" in shown
        assert f"the Ripple plan costs {value} euros, the helmet 80 euros; article 4900" in shown
        assert " 49 " not in shown


def test_a_value_of_an_earlier_turn_is_not_swapped():
    turns = [
        {"role": "user", "content": "And Ripple?"},
        {"role": "assistant", "content": "49 euros a month."},
    ]
    config = DrawConfig(p_value_swap=1.0)
    assert draw(priced(history=turns), config, seed=0, epoch=0).variant == "plain"


def test_of_two_versions_the_newest_is_right_and_both_show_their_dates():
    config = DrawConfig(p_conflict=1.0, p_no_gold=1.0)
    places = set()
    for epoch in range(12):
        drawn = draw(priced(), config, seed=0, epoch=epoch)
        shown = drawn.messages[-1]["content"]
        (number,) = drawn.gold_numbers
        assert f"[{number}] Plans (valid from 2025-03-01)\nThe Ripple plan costs 49" in shown
        assert "Plans (valid from 2024-01-01)\nThe Ripple plan costs 39" in shown
        assert drawn.target == f"It costs 49 euros a month [{number}]."
        places.add(number)
    assert len(places) > 1
    assert draw(priced(outdated=[]), config, seed=0, epoch=0).variant == "plain"


def test_shares_of_zero_leave_every_draw_as_it_was():
    for epoch in range(10):
        one = draw(priced(), DrawConfig(), seed=3, epoch=epoch)
        two = draw(priced(outdated=[]), DrawConfig(), seed=3, epoch=epoch)
        assert one == two
        assert "valid from" not in one.messages[-1]["content"]
    with pytest.raises(TuneConfigError, match="sum to 1 at most"):
        DrawConfig(p_value_swap=0.6, p_conflict=0.6)


def test_replay_rows_are_shown_without_passages(tokenizer):
    row = priced(kind="replay", gold=[], outdated=[], answer="Four.", question="Two and two?")
    drawn = draw(validate_row(row), DrawConfig(p_style_passages=1.0), seed=0, epoch=0)
    assert (drawn.passages, drawn.target, drawn.kind) == (0, "Four.", "replay")
    assert least_tokens(row, tokenizer, DrawConfig()) > 10


def test_least_tokens_is_what_no_draw_goes_below(tokenizer):
    least = least_tokens(priced(), tokenizer, DrawConfig())
    config = DrawConfig(p_no_gold=0.0, max_length=least)
    built = build_rows([priced()], tokenizer, config, seed=0, epoch=0)
    assert len(built.rows[0].input_ids) == least
    refused = build_rows([priced()], tokenizer, DrawConfig(max_length=least - 1), seed=0, epoch=0)
    assert [name for name, _ in refused.refusals] == ["r"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"outdated": [{"id": "o", "title": "t", "text": "x"}]}, "needs 'valid_from'"),
        ({"kind": "style", "gold": []}, "only a grounded row has outdated"),
        ({"kind": "general"}, "grounded, style, abstain, replay"),
        ({"split": "holdout"}, "train, dev, confirm, test"),
    ],
)
def test_unusable_rows_are_refused(change, reason):
    with pytest.raises(SnapshotError, match=reason):
        validate_row(priced(**change))


def test_what_was_held_out_once_never_trains():
    items = [SplitItem(str(n), f"question {n}") for n in range(40)]
    for seed in range(5):
        pinned = {"3": "test", "4": "confirm", "5": "test"}
        result = assign_splits(items, seed=seed, pinned=pinned, confirm=0.1)
        assert {name: result.split[name] for name in pinned} == pinned
        assert result.audit.pinned == 3
    joined = [*items, SplitItem("new", "question 3"), SplitItem("b", "x", alike=("4", "5"))]
    split = assign_splits(joined, pinned={"3": "test", "4": "confirm", "5": "test"}).split
    assert split["new"] == "test"
    assert {split["b"], split["4"], split["5"]} == {"test"}


def test_a_giant_component_is_cut_along_time_and_says_what_is_shared():
    items = [
        SplitItem(f"i{n:02}", f"question {n}", ("handbook",), f"2024-{1 + n // 4:02}-01")
        for n in range(40)
    ]
    items.append(SplitItem("twin", "question 39", (), "2024-01-01"))
    result = assign_splits(items, dev=0.1, test=0.1, confirm=0.1, cut_giant=True)
    times = {
        side: [item.when for item in items if result.split[item.id] == side and item.id != "twin"]
        for side in ("train", "dev", "confirm", "test")
    }
    assert max(times["train"]) <= min(times["dev"]) <= min(times["confirm"])
    assert max(times["confirm"]) <= min(times["test"])
    assert result.split["twin"] == result.split["i39"] == "test"
    assert result.audit.cut["sources_in_train_and_held_out"] == 1
    assert "1 of its 1 sources" in result.audit.warning
    whole = assign_splits(items)
    assert len(set(whole.split.values())) == 1


def test_recall_without_passages_is_told_from_reading():
    rows = [priced(id=f"r{n}", component=f"c{n}") for n in range(8)]
    rows.append(priced(id="named", question="Does it cost 49 euros?", outdated=[]))
    asked = probe_rows(rows, limit=20)
    assert len(asked) == 8

    def knows(prompts):
        return ["It costs 49 euros."] * len(prompts)

    def guesses(prompts):
        return ["It costs 490 euros."] * len(prompts)

    def reads(prompts):
        return [
            p[-1]["content"].split("costs ")[-1] if "[1]" in p[-1]["content"] else "?"
            for p in prompts
        ]

    leaking = closed_book_recall(asked, guesses, knows)
    assert (leaking.base, leaking.tuned, leaking.passed) == (0.0, 1.0, False)
    assert leaking.leaked[0].value == "49"
    assert leaking.p_value == pytest.approx(2**-8)
    assert closed_book_recall(asked, guesses, reads).verdict == "passed"
    for count in (0, 4):
        few = closed_book_recall(asked[:count], guesses, knows)
        assert (few.passed, few.verdict) == (None, "not measured")
    assert closed_book_recall(asked[:5], guesses, knows).verdict == "failed"
    assert closed_book_recall(asked, knows, knows).passed
    assert closed_book_recall(asked, guesses, reads, passages=True).tuned == 1.0

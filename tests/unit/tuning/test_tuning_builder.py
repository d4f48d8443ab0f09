import pytest

from tuning.builder import DrawConfig, build_rows, cited, draw
from tuning.errors import TuneConfigError
from tuning.prompt import DEFAULT_ABSTAIN, end_of_turn_id

WITH_GOLD = DrawConfig(p_no_gold=0.0, p_gold_only=0.0)


def test_the_citation_is_the_number_gold_has_in_the_prompt(rows):
    seen = set()
    for epoch in range(20):
        drawn = draw(rows[0], WITH_GOLD, seed=0, epoch=epoch)
        (number,) = drawn.gold_numbers
        assert f"[{number}] Fees > Rates\nPlan 0 costs" in drawn.messages[-1]["content"]
        assert drawn.target == f"0 euros [{number}]"
        seen.add(number)
    assert len(seen) > 1


def test_a_draw_depends_on_seed_and_epoch_alone(rows):
    assert draw(rows[0], WITH_GOLD, seed=1, epoch=2) == draw(rows[0], WITH_GOLD, seed=1, epoch=2)
    draws = {draw(rows[0], WITH_GOLD, seed=1, epoch=e).messages[-1]["content"] for e in range(8)}
    assert len(draws) > 2


def test_without_gold_the_target_is_the_abstention(rows):
    drawn = draw(rows[0], DrawConfig(p_no_gold=1.0), seed=0, epoch=0)
    assert (drawn.target, drawn.kind, drawn.gold_numbers) == (DEFAULT_ABSTAIN, "abstain", ())
    assert "Fees > Rates" not in drawn.messages[-1]["content"]
    assert "[1] Other" in drawn.messages[-1]["content"]


def test_a_use_case_sentence_is_taught_and_asked_for(rows):
    sentence = DEFAULT_ABSTAIN + " Please call us."
    drawn = draw(rows[0], DrawConfig(p_no_gold=1.0, abstain_sentence=sentence), seed=0, epoch=0)
    assert drawn.target == sentence
    assert sentence in drawn.messages[0]["content"]


def test_gold_is_never_removed_when_nothing_else_could_be_shown(rows):
    row = {**rows[0], "distractors": []}
    drawn = draw(row, DrawConfig(p_no_gold=1.0), seed=0, epoch=0)
    assert drawn.kind == "grounded"


def test_an_abstain_row_always_shows_its_hardest_passage(rows):
    for epoch in range(10):
        drawn = draw(rows[2], WITH_GOLD, seed=0, epoch=epoch)
        assert "Plan 0 costs 0 euros" in drawn.messages[-1]["content"]


def test_style_rows_come_with_and_without_passages(rows):
    shown = {draw(rows[1], WITH_GOLD, seed=0, epoch=e).passages > 0 for e in range(20)}
    assert shown == {True, False}
    assert draw(rows[1], WITH_GOLD, seed=0, epoch=0).target == "Hello, how can I help?"


def test_the_placeholder_says_where_the_citation_goes():
    assert cited("See {cite} for fees.", (2,)) == "See [2] for fees."
    assert cited("30 days", (1, 3)) == "30 days [1][3]"
    assert cited("30 days {cite}.", ()) == "30 days."


def test_the_completion_ends_with_the_end_of_turn(rows, tokenizer):
    encoded = build_rows(rows[:1], tokenizer, WITH_GOLD, seed=0, epoch=0).rows[0]
    completion = list(encoded.input_ids)[encoded.prompt_length :]
    assert completion[-1] == end_of_turn_id(tokenizer)
    assert tokenizer.decode(completion[:-1]).startswith("0 euros [")
    prompt = tokenizer.decode(list(encoded.input_ids)[: encoded.prompt_length])
    assert prompt.endswith("<|im_start|>assistant\n")


def test_a_long_row_loses_distractors_and_never_gold(rows, tokenizer):
    row = {**rows[0], "distractors": [{**p, "text": "long " * 300} for p in rows[0]["distractors"]]}
    built = build_rows([row], tokenizer, WITH_GOLD, seed=0, epoch=0)
    text = tokenizer.decode(list(built.rows[0].input_ids))
    assert "Plan 0 costs 0 euros" in text
    assert "long long" not in text
    assert built.counts["distractors_dropped"] >= 1
    assert "0 euros [1]" in text


def test_a_row_that_cannot_fit_is_refused_with_its_length(rows, tokenizer):
    row = {**rows[0], "gold": [{**rows[0]["gold"][0], "text": "long " * 400}]}
    built = build_rows([row], tokenizer, WITH_GOLD, seed=0, epoch=0)
    assert built.rows == ()
    assert built.refusals[0][0] == "row-0"
    assert "the limit is 1024" in built.refusals[0][1]
    assert built.counts["rows_refused"] == 1


def test_no_row_is_longer_than_the_limit(rows, tokenizer):
    config = DrawConfig(max_length=600)
    built = build_rows(rows, tokenizer, config, seed=0, epoch=0)
    assert built.rows
    assert max(len(row.input_ids) for row in built.rows) <= 600


def test_shares_outside_the_unit_interval_are_refused():
    with pytest.raises(TuneConfigError, match=r"p_no_gold=1\.5"):
        DrawConfig(p_no_gold=1.5)

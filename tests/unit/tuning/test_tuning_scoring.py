import dataclasses
import json

import pytest

from tuning.builder import DrawConfig
from tuning.config import config_from
from tuning.errors import TuneConfigError
from tuning.run_parts import cases_of
from tuning.scoring import (
    COMPOSITE,
    abstains,
    dev_cases,
    mean_scores,
    score_answers,
    score_cases,
    score_intervals,
    token_f1,
)

ABSTAIN = "I could not find this in the knowledge base."


@pytest.fixture
def cases(rows, tokenizer):
    return dev_cases(rows[:3], tokenizer, DrawConfig(), seed=0)


def test_dev_cases_ask_a_grounded_row_with_and_without_gold(cases):
    assert [case.drawn.kind for case in cases] == ["grounded", "style", "abstain", "abstain"]


def test_right_answers_score_one_everywhere(cases):
    scores = score_answers(cases, [case.drawn.target for case in cases])
    assert scores["composite"] == 1.0
    assert scores["grounded_em"] == scores["citation"] == scores["abstention"] == 1.0


def test_a_wrong_citation_costs_the_citation_score_only(cases):
    answers = [case.drawn.target for case in cases]
    answers[0] = "0 euros [9]"
    scores = score_answers(cases, answers)
    assert (scores["citation"], scores["grounded_f1"]) == (0.0, 1.0)
    assert scores["composite"] < 1.0


def test_abstaining_always_is_no_way_to_score(cases):
    scores = score_answers(cases, [ABSTAIN] * len(cases))
    assert scores["abstention"] == 1.0
    assert scores["answered"] == scores["grounded_f1"] == 0.0


def test_weights_of_the_composite_can_be_set(cases):
    answers = [case.drawn.target for case in cases]
    answers[0] = "0 euros [9]"
    parts = score_cases(cases, answers)
    only = mean_scores(parts, {"citation": 1.0})
    assert only["composite"] == 0.0
    assert score_intervals(parts, {"citation": 1.0})["composite"][0] == 0.0
    assert mean_scores(parts, COMPOSITE | {"citation": 0.0})["composite"] == 1.0
    assert "composite" not in mean_scores(parts, {"citation": 0.0})


def test_weights_of_a_run_are_checked(config):
    heavy = dataclasses.replace(config, composite_weights={"counterfactual": 4.0})
    assert heavy.weights_of_parts() == COMPOSITE | {"counterfactual": 4.0}
    assert config_from(json.loads(json.dumps(dataclasses.asdict(heavy)))) == heavy
    with pytest.raises(TuneConfigError, match="composite_weights='taste' must be one of"):
        dataclasses.replace(config, composite_weights={"taste": 1.0})
    with pytest.raises(TuneConfigError, match="must be >= 0"):
        dataclasses.replace(config, composite_weights={"citation": -1.0})
    with pytest.raises(TuneConfigError, match="leaves no score"):
        dataclasses.replace(config, composite_weights=dict.fromkeys(COMPOSITE, 0.0))


def test_weights_that_no_dev_row_can_earn_are_refused_before_the_first_step(config, tokenizer):
    config = dataclasses.replace(config, eval_rows=3)
    given = score_cases(found := cases_of(config, tokenizer), [""] * len(found))
    assert COMPOSITE.keys() - given.keys()
    weightless = dataclasses.replace(
        config, composite_weights=dict.fromkeys(COMPOSITE.keys() & given.keys(), 0.0)
    )
    with pytest.raises(TuneConfigError, match="none of them has a weight"):
        cases_of(weightless, tokenizer)


def test_parts_without_cases_are_absent(cases):
    scores = score_answers(cases[1:2], ["Hello, how can I help?"])
    assert scores == {"style_em": 1.0, "style_f1": 1.0, "composite": 1.0}


def test_token_f1_by_hand():
    assert token_f1("the 30 days", "30 working days") == pytest.approx(0.8)
    assert token_f1("", "x") == 0.0


def test_a_use_case_may_append_to_the_abstention():
    assert abstains(ABSTAIN + " Call us.")
    assert not abstains("30 days [1]")


def test_training_variants_leave_dev_prompts_alone(tokenizer):
    text = "A parcel can be returned within 21 days of its arrival."
    row = {
        "id": "r",
        "question": "How long can I return a parcel?",
        "answer": "Within 21 days.",
        "kind": "grounded",
        "gold": [{"id": "g", "title": "Returns", "text": text}],
        "distractors": [{"id": "d", "title": "Fees", "text": "Express is dear."}],
        "outdated": [{"id": "o", "title": "Returns", "text": "14", "valid_from": "2020-01-01"}],
    }

    def asked(**variants):
        config = DrawConfig(max_length=4096, **variants)
        return dev_cases([row], tokenizer, config, seed=0)

    altered = asked(p_value_swap=1.0)
    kept = [case.new_value in str(case.drawn.messages) for case in altered if case.new_value]
    assert kept == [True]
    assert altered == asked() == asked(p_conflict=1.0)

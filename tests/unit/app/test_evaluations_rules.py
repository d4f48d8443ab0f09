"""Which rules an evaluation registers, and what is served of what they choose."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from app.decisions import service as decisions
from app.errors import BadInput
from app.evaluations import reports
from app.evaluations import service as evaluations
from evals.confirmation import Confirmation
from evals.decision_spec import DecisionSpec
from evals.statistics.intervals import Interval


def test_the_registered_order_of_cost_counts():
    arms = [{"name": name} for name in ("prompt", "rag", "tuned", "reader")]
    rules = {"cost_order": ["rag", "prompt", "hybrid"]}
    assert reports.spec_for({"arms": arms, "spec": rules}).cost_order == (
        "rag", "prompt", "tuned", "reader",
    )  # fmt: skip
    assert reports.spec_for({"arms": arms}).cost_order == ("prompt", "tuned", "rag", "reader")


def test_the_registered_metric_decides_and_a_second_one_is_refused():
    registered = {"spec": {"primary": "exact_match"}}
    assert evaluations._checked(None, None, registered)["primary"] == "exact_match"
    assert evaluations._checked(None, None, {})["primary"] == "token_f1"
    with pytest.raises(BadInput, match="one primary metric"):
        evaluations._checked(None, None, {**registered, "primary": "token_f1"})


@pytest.mark.parametrize(("low", "high", "served"), [(-0.4, -0.2, False), (-0.1, 0.2, True)])
def test_a_choice_that_held_back_questions_refute_is_not_served(monkeypatch, low, high, served):
    gain = Interval(-0.1, low, high, 50, 50, 0.95, "cluster t")
    made = SimpleNamespace(
        status="WINNER",
        choice="rag",
        spec=DecisionSpec(),
        confirmation=Confirmation(50, 50, gain, "prompt", 0.1, gain, ""),
        exploratory=(),
        to_json=lambda: "{}",
    )
    evaluation = SimpleNamespace(id="e", manifest={})
    use_case = SimpleNamespace(id="u", adapter_id=None)
    serve = MagicMock()
    monkeypatch.setattr(decisions.use_cases, "get", lambda *_: use_case)
    monkeypatch.setattr(decisions, "_evaluation", lambda *_: evaluation)
    monkeypatch.setattr(decisions, "_measured", lambda *_: made)
    monkeypatch.setattr(decisions, "_serve", serve)
    monkeypatch.setattr(decisions.due, "context_of", lambda *_: {})
    monkeypatch.setattr(decisions.repository, "answer_requests", lambda *_: None)
    monkeypatch.setattr(decisions.repository, "decision_from", lambda *_: None)
    principal = SimpleNamespace(workspace_id="w", name="ada")
    decision, _ = decisions.decide(MagicMock(), principal, "help", base="base")
    assert serve.called is served
    assert bool(decision.applied) is served


def test_another_comparison_is_not_taken_for_the_unfinished_one():
    payload = {
        "evaluation_id": "e",
        "samples_name": "s.jsonl",
        "style": None,
        "arms": [],
        "primary": "token_f1",
        "hidden_twins": True,
        "remove_gold": False,
    }
    session = MagicMock()
    session.execute.return_value = [("evaluation", SimpleNamespace(payload=payload))]
    rules = {"arms": [], "primary": "token_f1"}
    assert evaluations._unfinished(session, "u", "digest", rules) is None
    again = {**rules, "hidden_twins": True}
    assert evaluations._unfinished(session, "u", "digest", again) is not None

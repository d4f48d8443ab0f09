"""The router deploys only where it pays; planted faults are found and clean data raise none."""

import numpy as np
import pytest

from evals.errors import EvalError
from evals.faults import find_faults
from evals.router import fit_router, judge_router

ARMS = ("prompt", "rag")


def routable(rng, n=1200, signal=3.0):
    """Two arms; the first feature tells which of them is right, as far as `signal` goes."""
    x = rng.normal(size=(n, 4))
    p = 1 / (1 + np.exp(-signal * x[:, 0]))
    right = np.stack([rng.random(n) < 0.15 + 0.7 * (1 - p), rng.random(n) < 0.15 + 0.7 * p], 1)
    return x, right.astype(float), np.arange(n) // 4


def test_a_router_with_signal_pays_and_is_calibrated():
    x, right, clusters = routable(np.random.default_rng(0))
    found = judge_router(x, right, ARMS, clusters)
    assert found.verdict == "deploy"
    assert found.gain.low > 0
    assert found.best_value < found.router_value < found.oracle_value
    assert found.accuracy > found.break_even
    assert all(c.calibration_error < 0.07 and c.brier < 0.25 for c in found.calibration)
    assert "worth deploying" in found.sentence


def test_a_router_without_signal_is_not_worth_it():
    rng = np.random.default_rng(1)
    deployed = 0
    for _ in range(25):
        x = rng.normal(size=(200, 2))
        right = (rng.random((200, 2)) < [0.3, 0.5]).astype(float)
        found = judge_router(x, right, ARMS, np.arange(200))
        deployed += found.verdict == "deploy"
    assert deployed <= 3
    assert "not worth it: always use" in found.sentence


def test_the_break_even_of_the_literature():
    # Right only with retrieval .35, only without .05: a router must be right 87.5 % of the time.
    only_rag, only_prompt, both = np.array([0, 1.0]), np.array([1.0, 0]), np.array([1.0, 1.0])
    rows = [only_rag] * 70 + [only_prompt] * 10 + [both] * 30 + [np.zeros(2)] * 90
    right = np.array(rows)
    x = np.random.default_rng(2).normal(size=(200, 2))
    assert judge_router(x, right, ARMS, np.arange(200)).break_even == pytest.approx(0.875)


def test_costs_move_the_choice_and_rows_may_come_in_any_order():
    x, right, clusters = routable(np.random.default_rng(3), n=600)
    free = fit_router(x, right, ARMS, clusters).choose(x)
    dear = fit_router(x, right, ARMS, clusters, costs=(0.0, 0.3)).choose(x)
    assert (dear == 1).sum() < (free == 1).sum()
    order = np.random.default_rng(4).permutation(600)
    again = judge_router(x[order], right[order], ARMS, clusters[order])
    assert again.router_value == pytest.approx(judge_router(x, right, ARMS, clusters).router_value)


def test_unusable_router_inputs_are_refused():
    x = np.zeros((30, 2))
    with pytest.raises(EvalError, match="shape"):
        judge_router(x, np.zeros((30, 3)), ARMS, np.arange(30))
    with pytest.raises(EvalError, match="20 clusters"):
        judge_router(x, np.zeros((30, 2)), ARMS, np.zeros(30, dtype=int))
    with pytest.raises(EvalError, match="3 costs"):
        judge_router(x, np.zeros((30, 2)), ARMS, np.arange(30), costs=(1, 2, 3))


def ramp(rng, gain, shares=((0.1, 0.6), (0.5, 0.4)), n=8000):
    """A rollout in stages: (share of the candidate, level of the stage); `gain` in every stage."""
    stage, live, candidate = [], [], []
    for number, (share, level) in enumerate(shares):
        served = rng.random(n) < share
        right = (rng.random(n) < level + gain * served).astype(float)
        stage += [f"stage {number}"] * n
        live += np.where(served, np.nan, right).tolist()
        candidate += np.where(served, right, np.nan).tolist()
    return {"prompt": live, "rag": candidate}, stage


def test_pooled_stages_that_turn_the_sign_are_found(score_table):
    scores, stages = ramp(np.random.default_rng(0), gain=0.03)
    (fault,) = find_faults(score_table(scores), metric="token_f1", stages=stages)
    assert (fault.kind, fault.severity) == ("pooled stages", "error")
    assert "compares like with like" in fault.sentence


def test_equal_shares_or_equal_levels_are_no_fault(score_table):
    rng = np.random.default_rng(1)
    for shares in (((0.5, 0.6), (0.5, 0.4)), ((0.1, 0.5), (0.5, 0.5))):
        scores, stages = ramp(rng, 0.03, shares)
        assert find_faults(score_table(scores), metric="token_f1", stages=stages) == ()


def grouped(rng, spread, groups=30, size=10):
    effect = rng.normal(0, spread, groups).repeat(size)
    a = (rng.random(groups * size) < np.clip(0.5 + effect, 0, 1)).astype(float)
    b = (rng.random(groups * size) < np.clip(0.5 - effect, 0, 1)).astype(float)
    return {"prompt": a, "rag": b}, [f"doc{i}" for i in range(groups) for _ in range(size)]


def test_a_wrong_cluster_key_is_found_and_named(score_table):
    scores, document = grouped(np.random.default_rng(2), 0.3)
    (fault,) = find_faults(score_table(scores), metric="token_f1", keys={"document": document})
    assert (fault.kind, fault.severity) == ("cluster key", "error")
    assert "Put document into the field `cluster`" in fault.sentence


def test_the_right_cluster_key_and_independent_questions_raise_no_alarm(score_table):
    rng = np.random.default_rng(3)
    scores, document = grouped(rng, 0.3)
    clusters = np.unique(document, return_inverse=True)[1]
    right = score_table(scores, clusters)
    assert find_faults(right, metric="token_f1", keys={"document": document}) == ()
    alarms = 0
    for _ in range(100):
        scores, document = grouped(rng, 0.0)
        keys = {"document": document}
        alarms += bool(find_faults(score_table(scores), metric="token_f1", keys=keys))
    assert alarms <= 4


def labelled(rng, kindness, n=300):
    """Human labels of two arms, and a judge that forgives the second a share of its faults."""
    human = {arm: (rng.random(n) < share).astype(float) for arm, share in
             (("prompt", 0.6), ("rag", 0.5))}  # fmt: skip
    judge = {}
    for arm, labels in human.items():
        wrong = rng.random(n) < 0.1
        said = np.where(wrong, 1 - labels, labels)
        forgiven = (rng.random(n) < kindness) & (arm == "rag")
        judge[arm] = np.where(forgiven, 1.0, said)
    return human, judge


def test_a_judge_that_favours_an_arm_is_found(score_table):
    rng = np.random.default_rng(4)
    human, judge = labelled(rng, 0.5)
    (fault,) = find_faults(score_table(human), metric="token_f1", labels=human, judged=judge)
    assert (fault.kind, fault.severity) == ("judge favours an arm", "error")
    assert "kinder to rag" in fault.sentence
    alarms = 0
    for _ in range(60):
        human, judge = labelled(rng, 0.0)
        found = find_faults(score_table(human), metric="token_f1", labels=human, judged=judge)
        alarms += bool(found)
    assert alarms <= 3


def test_copies_counted_as_independent_are_found(score_table):
    table = score_table({"prompt": np.arange(40) / 40})
    texts = [f"Question {i % 30}?" for i in range(40)]
    (fault,) = find_faults(table, metric="token_f1", questions=texts)
    assert (fault.kind, fault.severity) == ("copied questions", "error")
    assert "10 questions are copies" in fault.sentence
    assert find_faults(table, metric="token_f1", questions=[f"Q {i}" for i in range(40)]) == ()


def test_context_must_fit_the_table(score_table):
    table = score_table({"prompt": [0.0, 1.0]})
    with pytest.raises(ValueError, match="stages has 1 rows, the table 2"):
        find_faults(table, metric="token_f1", stages=["a"])
    with pytest.raises(ValueError, match="name the metric"):
        find_faults(table)

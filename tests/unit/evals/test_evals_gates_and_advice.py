"""Gates, advice, assumptions, confirmation, looks and plans: before and around the statistics."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.arms import COST_ORDER
from evals.confirmation import split_table
from evals.decision import assume, decide, replay
from evals.decision_spec import DecisionSpec, max_p95_latency, parse_spec
from evals.errors import DecisionError
from evals.evaluation import IntervalSettings, evaluate
from evals.evidence import gather_evidence
from evals.gates import ArmFacts, CaseFacts, check_gates, parse_case
from evals.planning import plan_comparison
from evals.prior import seed_prior, seed_rule
from evals.rules import settle

FAST = IntervalSettings(resamples=100)
# The fixture is a plain function, so that sharing it between examples is no harm.
PURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
ARMS = {"prompt": 0.1, "tuned": 0.2, "rag": 0.5, "hybrid": 0.8}


def decision(world, quality, spec, n=300, **options):
    made = world(quality, n=n)
    return decide(evaluate(made.samples, made.outputs, settings=FAST), spec, **options)


def gated(case):
    return {(failure.arm, failure.gate) for failure in check_gates(case, COST_ORDER)}


@pytest.mark.parametrize(
    ("case", "failures"),
    [
        (CaseFacts(), set()),
        (CaseFacts(must_cite=True), {("prompt", "citations"), ("tuned", "citations")}),
        (
            CaseFacts(data_allowed_in=("index",)),
            {("tuned", "weights"), ("hybrid", "weights")},
        ),
        (
            CaseFacts(data_allowed_in=("weights",)),
            {("rag", "index"), ("hybrid", "index")},
        ),
        (
            CaseFacts(local_only=True, arms=(ArmFacts("rag", True, False, local=False),)),
            {("rag", "local")},
        ),
        (
            CaseFacts(max_p95_s=0.5, arms=(ArmFacts("hybrid", True, True, p95_s=0.9),)),
            {("hybrid", "latency")},
        ),
        (
            CaseFacts(max_cost_per_1k=2, arms=(ArmFacts("rag", True, False, cost_per_1k=3),)),
            {("rag", "cost")},
        ),
        (
            CaseFacts(task="extraction", arms=(ArmFacts("tuned", False, True, examples=199),)),
            {("tuned", "examples")},
        ),
        (
            CaseFacts(
                task="classification",
                classes=77,
                arms=(ArmFacts("tuned", False, True, examples=77 * 50),),
            ),
            set(),
        ),
    ],
)  # fmt: skip
def test_every_gate_rules_out_the_arms_it_is_about(case, failures):
    assert gated(case) == failures


def test_gates_come_before_statistics_and_say_why(world):
    spec = DecisionSpec(case=CaseFacts(data_allowed_in=("index",)))
    found = decision(world, ARMS, spec)
    assert (found.status, found.choice) == ("WINNER", "rag")
    assert [(r.arm, r.kind) for r in found.rejected[:2]] == [("tuned", "gate"), ("hybrid", "gate")]
    assert "may not be put into a model's weights" in found.rejected[0].sentence
    assert found.evidence.arms == ("prompt", "rag")


def test_gates_cost_the_other_arms_nothing(world, score_table):
    scores = {arm: np.random.default_rng(0).random(200) for arm in COST_ORDER}
    gone = gather_evidence(score_table(scores), DecisionSpec(), without=("tuned", "hybrid"))
    alone = gather_evidence(score_table({a: scores[a] for a in ("prompt", "rag")}), DecisionSpec())
    assert gone == alone


def test_a_use_case_that_no_arm_may_serve_names_what_would_have_to_change(world):
    case = CaseFacts(must_cite=True, data_allowed_in=("weights",))
    found = decision(world, ARMS, DecisionSpec(case=case))
    assert (found.status, found.choice) == ("INFEASIBLE", None)
    assert "could be measured if" in found.relaxation.sentence
    assert found.reason[0] == "No arm was left to be measured."


@pytest.mark.parametrize(
    ("case", "arm"),
    [
        (CaseFacts(domain="support", changes="high"), "hybrid"),
        (CaseFacts(domain="support", changes="low"), "tuned"),
        (CaseFacts(domain="code", task="generation", changes="low"), "tuned"),
        (CaseFacts(domain="documents", changes="medium"), "rag"),
        (CaseFacts(domain="finance", changes="high"), "hybrid"),
        (CaseFacts(task="extraction", changes="low"), "tuned"),
        (CaseFacts(task="extraction", changes="high"), "hybrid"),
        (CaseFacts(requirements_move=True), "prompt"),
        (CaseFacts(domain="support", requirements_move=True), "rag"),
        (CaseFacts(domain="code", arms=(ArmFacts("tuned", False, True, examples=99),)), "prompt"),
        (CaseFacts(), "rag"),
    ],
)  # fmt: skip
def test_every_row_of_the_advice(case, arm):
    assert seed_rule(case).arm == arm
    prior = seed_prior(case)
    assert prior.default in prior.build_order
    assert sum(dict(prior.effort).values()) == pytest.approx(1)


def test_advice_never_names_an_arm_that_is_ruled_out():
    case = CaseFacts(domain="support", changes="high", data_allowed_in=("index",))
    prior = seed_prior(case)
    assert (prior.default, set(prior.build_order)) == ("rag", {"prompt", "rag"})
    assert "ruled out" in prior.reasons[1]
    assert seed_prior(CaseFacts(must_cite=True, data_allowed_in=())) is None
    secret = CaseFacts(domain="documents", changes="high", data_allowed_in=("weights",))
    assert seed_prior(secret).default == "tuned"
    stable = CaseFacts(domain="support", changes="low", data_allowed_in=("index",))
    assert seed_prior(stable).default == "rag"


def test_without_a_measurement_the_advice_is_assumed_and_replays():
    spec = DecisionSpec(case=CaseFacts(domain="support", changes="high"))
    found = assume(spec)
    assert (found.status, found.choice, found.inputs) == ("ASSUMED", "hybrid", None)
    assert "Nothing is measured yet" in found.headline
    assert found.warnings == ("Nothing has been measured. This is advice, not evidence.",)
    assert {v.change: v.choice for v in found.sensitivity}["pace of change low"] == "tuned"
    assert replay(found.to_json(), (), ()).identical
    with pytest.raises(DecisionError, match="give `case`"):
        assume(DecisionSpec())
    blocked = assume(DecisionSpec(case=CaseFacts(must_cite=True, data_allowed_in=())))
    assert (blocked.status, blocked.choice) == ("INFEASIBLE", None)


def test_the_record_says_whether_the_advice_was_right(world):
    spec = DecisionSpec(case=CaseFacts(domain="documents", changes="high"))
    found = decision(world, ARMS, spec)
    assert (found.choice, found.prior.default, found.agrees_with_prior) == ("hybrid", "rag", False)
    assert any("the measurement counts" in line for line in found.reason)


@PURE
@given(st.permutations(range(40)), st.floats(0.1, 0.5))
def test_the_confirm_split_keeps_clusters_whole_and_ignores_order(score_table, order, share):
    clusters = np.arange(40) // 3
    table = score_table({"prompt": np.arange(40) / 40}, clusters)
    chosen, held = split_table(table, share)
    assert not set(chosen.clusters.tolist()) & set(held.clusters.tolist())
    assert len(chosen.sample_ids) + len(held.sample_ids) == 40
    mixed = replace(
        table,
        sample_ids=tuple(table.sample_ids[i] for i in order),
        clusters=table.clusters[list(order)],
        values={"prompt": {k: v[list(order)] for k, v in table.values["prompt"].items()}},
    )
    assert set(split_table(mixed, share)[1].sample_ids) == set(held.sample_ids)


def test_the_choice_is_confirmed_on_questions_that_had_no_part_in_it(world):
    found = decision(world, ARMS, DecisionSpec(confirm_share=0.3), n=400)
    assert found.choice == "hybrid"
    assert found.confirmation.versus == "rag"
    assert found.confirmation.samples + found.evidence.samples == 400
    assert found.confirmation.gain.low > 0
    assert found.reason[-1].endswith("That confirms the choice.")
    assert not any("held back" in line for line in found.warnings)


def test_choosing_the_luckiest_of_equal_arms_is_corrected_by_the_held_questions(score_table):
    rng = np.random.default_rng(3)
    seen, held = [], []
    for _ in range(150):
        scores = {arm: (rng.random(60) < 0.5).astype(float) for arm in COST_ORDER}
        chosen, rest = split_table(score_table(scores), 0.5)
        means = {arm: chosen.scored(arm, "token_f1")[0].mean() for arm in COST_ORDER}
        best = max(means, key=means.get)
        seen.append(means[best])
        held.append(rest.scored(best, "token_f1")[0].mean())
    assert np.mean(seen) > 0.55
    assert abs(np.mean(held) - 0.5) < 0.03


def test_looks_go_on_where_earlier_ones_dropped_arms_and_replay(world):
    made = world(ARMS, n=300)
    spec = DecisionSpec(looks=3, spending="obrien_fleming")
    first_outputs = [o for o in made.outputs if int(o.sample_id[1:]) < 100]
    first = decide(evaluate(made.samples[:100], first_outputs, settings=FAST), spec, look=1)
    gone = {rejection.arm for rejection in first.rejected}
    assert first.status == "UNDECIDED" or first.choice == "hybrid"
    rest = [o for o in made.outputs if o.arm not in gone]
    second = decide(
        evaluate(made.samples, rest, settings=FAST), spec, look=3, earlier=first.rejected
    )
    assert second.choice == "hybrid"
    assert {r.arm for r in second.rejected} | {"hybrid"} == set(ARMS)
    assert replay(second.to_json(), made.samples, rest).identical


def test_what_the_data_dropped_frees_no_error(score_table):
    scores = {arm: np.random.default_rng(1).random(100) for arm in COST_ORDER}
    spec = DecisionSpec(constraints=(max_p95_latency(1.0),))
    full = gather_evidence(score_table(scores), spec)
    later = gather_evidence(score_table(scores), spec, dropped=("prompt",))
    for pair in later.pairs:
        assert pair == full.pair(pair.a, pair.b)
    assert all(verdict in full.verdicts for verdict in later.verdicts)


@PURE
@given(st.dictionaries(st.sampled_from(COST_ORDER), st.floats(0.05, 1.0), min_size=1))
def test_effort_only_moves_the_error_between_arms(score_table, effort):
    rng = np.random.default_rng(2)
    table = score_table({arm: rng.random(60) for arm in COST_ORDER})
    limits = (max_p95_latency(1.0),)
    spec = DecisionSpec(effort=tuple(effort.items()), constraints=limits)
    found = gather_evidence(table, spec)
    spent = sum(pair.alpha for pair in found.pairs) + sum(v.alpha for v in found.verdicts)
    assert spent == pytest.approx(spec.alpha)


def test_more_effort_for_an_arm_narrows_its_bounds(score_table):
    scores = {arm: np.random.default_rng(4).random(80) for arm in COST_ORDER}
    even = gather_evidence(score_table(scores), DecisionSpec())
    kind = gather_evidence(
        score_table(scores), DecisionSpec(effort=(("rag", 0.4), ("hybrid", 0.4), ("prompt", 0.1)))
    )
    width = [
        found.pair("rag", "hybrid").high - found.pair("rag", "hybrid").low for found in (even, kind)
    ]
    assert width[1] < width[0]


def test_sensitivity_covers_the_effort_too(world):
    spec = DecisionSpec(effort=(("hybrid", 0.4), ("rag", 0.2)))
    changes = {v.change for v in decision(world, ARMS, spec).sensitivity}
    assert {"effort for hybrid x 1.2", "effort for hybrid x 0.8", "effort for rag x 1.2"} <= changes


def test_a_spec_with_facts_and_effort_survives_json():
    case = CaseFacts(
        domain="finance", changes="high", arms=(ArmFacts("rag", True, False, p95_s=1),)
    )
    spec = DecisionSpec(case=case, effort=(("rag", 0.5),), confirm_share=0.2, looks=4)
    record = json.loads(assume(spec).to_json())["spec"]
    assert parse_spec(record) == spec
    assert parse_spec({"effort": {"rag": 0.5}}).effort == (("rag", 0.5),)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"effort": {"rag": 2}}, "effort for rag"),
        ({"spending": "all"}, "equal, obrien_fleming"),
        ({"confirm_share": 0.9}, "confirm_share"),
        ({"expires_days": 0}, "expires_days"),
        ({"case": {"task": "poetry"}}, "question_answering"),
        ({"case": {"colour": 1}}, "'colour'"),
        ({"case": {"arms": [{"arm": "rag"}]}}, "cannot be read"),
        ({"case": {"max_p95_s": 0}}, "must be positive"),
        ({"case": {"data_allowed_in": ["paper"]}}, "index, weights"),
    ],
)
def test_unusable_rules_and_facts_are_refused(record, message):
    with pytest.raises(DecisionError, match=message):
        parse_spec(record)


def test_records_of_older_rules_are_refused_with_what_to_do(world):
    made = world({"prompt": 0.5}, n=20)
    record = json.loads(
        decide(evaluate(made.samples, made.outputs, settings=FAST), DecisionSpec()).to_json()
    )
    with pytest.raises(DecisionError, match="decide again"):
        replay(record | {"schema_version": 1}, made.samples, made.outputs)


def test_a_plan_says_what_can_be_shown_before_anything_is_paid_for():
    spec = DecisionSpec(margin=0.05)
    small = plan_comparison(spec, COST_ORDER, 100, 100)
    assert small.verdict == "refuse"
    assert "That is not enough" in small.sentences[-1]
    assert 1000 < small.needed < 4000
    assert plan_comparison(spec, COST_ORDER, small.needed, small.needed).verdict == "enough"
    assert plan_comparison(spec, COST_ORDER, small.needed // 2, small.needed // 2).verdict == "warn"
    clustered = plan_comparison(spec, COST_ORDER, 1000, 100)
    apart = plan_comparison(spec, COST_ORDER, 1000, 1000)
    assert clustered.needed > apart.needed
    with pytest.raises(DecisionError, match="two arms"):
        plan_comparison(spec, ["rag"], 100, 100)


def test_the_planned_difference_agrees_with_the_table_of_the_literature():
    # One comparison at n = 500, discordance 30 %: 6.8 points (McNemar, power .8).
    spec = DecisionSpec(margin=0.05)
    found = plan_comparison(spec, ("prompt", "rag"), 500, 500).looks[0].smallest_difference
    assert found == pytest.approx(0.068, abs=0.002)


def test_case_facts_read_from_json():
    facts = parse_case(
        {"task": "extraction", "arms": [{"arm": "x", "retrieves": True, "tuned": False}]}
    )
    assert facts.facts("x").retrieves
    assert facts.facts("hybrid").tuned


def test_settle_is_invariant_to_the_unit_of_cost(score_table):
    scores = {arm: np.random.default_rng(5).random(150) for arm in COST_ORDER}
    outcomes = set()
    for unit in (1, 1000):
        facts = tuple(
            ArmFacts(
                arm, arm in ("rag", "hybrid"), arm in ("tuned", "hybrid"), cost_per_1k=unit * c
            )
            for arm, c in zip(COST_ORDER, (1, 2, 3, 4), strict=True)
        )
        case = CaseFacts(max_cost_per_1k=3.5 * unit, arms=facts)
        gone = {failure.arm for failure in check_gates(case, COST_ORDER)}
        outcomes.add(
            settle(
                gather_evidence(score_table(scores), DecisionSpec(), without=gone), DecisionSpec()
            )
        )
    assert gone == {"hybrid"}
    assert len(outcomes) == 1

"""Routing from what is known before an answer, and published shapes held against outputs."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import shapes, worlds
from benchmarks.shapes_measure import Data, all_shapes
from evals.errors import EvalError
from evals.evaluation import IntervalSettings, evaluate
from evals.hiding import HIDDEN
from evals.outputs import Output, output_line
from evals.routing import FEATURES, question_features, route, router_record
from evals.samples import Sample, sample_record

FAST = IntervalSettings(resamples=50)


def test_features_tell_whether_the_search_covers_the_question():
    named = dict(zip(FEATURES, question_features(
        "How much does the Ripple plan cost?",
        ["The Ripple plan has a cost of 49 euros.", "A helmet can be returned."],
    ), strict=True))  # fmt: skip
    assert named["asks for an amount or a time"] == 1.0
    assert named["passages"] == 2.0
    assert named["best overlap"] > named["mean overlap"] > 0
    assert named["overlap ahead of the second"] == named["best overlap"]
    nothing = dict(zip(FEATURES, question_features("Why?", []), strict=True))
    assert (nothing["best overlap"], nothing["asks for a reason or a way"]) == (0.0, 1.0)
    assert np.isfinite(question_features("", [])).all()


def routable(n=400, known=0.5):
    """Questions about known subjects, which rag answers, and about others, which prompt does."""
    rng = np.random.default_rng(0)
    samples, outputs = [], []
    for i in range(n):
        covered = rng.random() < known
        sample = Sample(f"q{i:03d}", f"What about subject{i} there?", (f"value {i}",))
        samples.append(sample)
        passage = f"All about subject{i} there." if covered else "Something else entirely."
        for arm, right in (("rag", covered), ("prompt", not covered)):
            text = f"value {i}" if right and rng.random() < 0.9 else "no idea"
            meta = {"passages": [{"id": "d", "text": passage}]} if arm == "rag" else {}
            outputs.append(Output(sample.id, arm, text, meta=meta))
    return samples, outputs


def test_a_router_is_trained_only_where_it_pays():
    samples, outputs = routable()
    made = evaluate(samples, outputs, settings=FAST)
    found = route(made, samples, outputs)
    assert found.report.verdict == "deploy"
    assert found.report.gain.low > 0
    assert max(found.weights["rag"], key=found.weights["rag"].get) in FEATURES
    kept = json.loads(json.dumps(router_record(found.router)))
    assert kept["arms"] == ["prompt", "rag"]
    assert len(kept["models"][0]["weights"]) == len(FEATURES)
    dear = route(made, samples, outputs, costs={"rag": 0.95})
    assert dear.router is None
    with pytest.raises(EvalError, match="no arm 'tuned'"):
        route(made, samples, outputs, arms=("rag", "tuned"))
    with pytest.raises(EvalError, match="at least two"):
        route(made, samples, outputs, arms=("rag",))
    with pytest.raises(EvalError, match="20 clusters"):
        route(evaluate(samples[:10], outputs[:20], settings=FAST), samples[:10], outputs[:20])


@pytest.fixture(scope="module")
def dice():
    found = {}
    for world in worlds.WORLDS:
        samples, outputs = worlds.stub(world, 1, questions=240)
        found[world.name] = Data(tuple(samples), tuple(outputs), world.primary)
    return found


def verdicts(work, *more):
    return {made.name: made.verdict for made in all_shapes(work, *more)}


def test_every_shape_of_known_worlds_is_found_or_its_absence_explained(dice):
    made = {shape.name: shape for shape in all_shapes(dice)}
    assert list(made) == [f"P{i}" for i in range(1, 11)]
    for name in ("P1", "P2", "P3", "P4", "P5", "P6", "P7"):
        assert made[name].verdict == "reproduced", made[name]
        assert all(d.interval.low is not None for d in made[name].differences)
    assert made["P8"].warn
    assert made["P9"].verdict == "not reproduced"  # these questions tell a router nothing
    assert made["P10"].verdict == "not measurable here"
    assert "--hidden-twins" in made["P10"].why


def test_a_shape_that_is_not_there_is_not_reproduced(dice):
    swapped = {"rag": "tuned", "hybrid": "tuned", "tuned": "rag"}
    world = dice["new_facts"]
    others = [o for o in world.outputs if o.arm not in ("hybrid",)]
    turned = Data(
        world.samples,
        tuple(replace(o, arm=swapped.get(o.arm, o.arm)) for o in others),
        world.primary,
    )
    made = {s.name: s for s in all_shapes({**dice, "new_facts": turned})}["P1"]
    assert made.verdict == "not reproduced"
    assert "the opposite is shown" in made.why
    assert verdicts({})["P1"] == "not measurable here"
    few = Data(dice["reader"].samples[:20], tuple(
        o for o in dice["reader"].outputs if o.sample_id < "q0020"
    ))  # fmt: skip
    why = {s.name: s for s in all_shapes({"reader": few})}["P3"].why
    assert "5 independent groups" in why


def test_refusing_is_read_from_a_run_with_hidden_gold(dice):
    samples, outputs = [], []
    for i in range(80):
        sample = Sample(f"h{i:02d}", f"Question {i}?", None, (f"d{i}",), tags=(HIDDEN,))
        samples.append(sample)
        for arm, quits in (("rag", i % 10 == 0), ("hybrid", i % 10 < 8)):
            outputs.append(Output(sample.id, arm, "no" if quits else "42", abstained=quits))
    assert verdicts(dice, [Data(tuple(samples), tuple(outputs))])["P10"] == "reproduced"


def test_flips_are_read_from_two_runs_around_a_change(dice):
    def run(value):
        samples = tuple(
            Sample(f"f{i:02d}", f"Price {i}?", (f"{value + i} euros",)) for i in range(60)
        )
        outputs = []
        for i, sample in enumerate(samples):
            outputs += [
                Output(sample.id, "rag", f"{value + i} euros"),
                Output(sample.id, "tuned", f"{100 + i} euros"),
            ]
        return Data(samples, tuple(outputs))

    assert verdicts(dice, [], (run(100), run(500)))["P7"] == "reproduced"
    assert verdicts(dice, [], (run(100), run(100)))["P7"] == "not measurable here"


def test_a_work_folder_is_read_as_worlds_write_it(tmp_path, dice):
    world = dice["strict_form"]
    folder = tmp_path / "strict_form"
    (folder / "outputs").mkdir(parents=True)
    (folder / "prompts").mkdir()
    (folder / "world.json").write_text(json.dumps({"primary": "exact_match"}))
    lines = (json.dumps(sample_record(s)) for s in world.samples)
    (folder / "samples.jsonl").write_text("\n".join(lines))
    for arm in {output.arm for output in world.outputs}:
        rows = [output_line(o) for o in world.outputs if o.arm == arm]
        (folder / "outputs" / f"{arm}.jsonl").write_text("\n".join(rows) + "\n")
    passages = [{"id": "p", "title": "T", "text": "about"}]
    prompts = [json.dumps({"id": s.id, "passages": passages}) for s in world.samples]
    (folder / "prompts" / "rag.jsonl").write_text("\n".join(prompts))
    work = shapes.read_work(tmp_path)
    assert work["strict_form"].primary == "exact_match"
    shown = next(o for o in work["strict_form"].outputs if o.arm == "rag")
    assert shown.passages[0].text == "about"
    assert verdicts(work)["P4"] == "reproduced"
    row = shapes.record(next(s for s in all_shapes(work) if s.name == "P4"))
    assert row["differences"][0]["low"] > 0

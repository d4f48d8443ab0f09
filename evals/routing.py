"""What is known of a question before any answer is generated, and whether routing by it pays.

The features cost one search: words of the question, and how well the passages found cover them.
An arm that does not retrieve is routed by them too, for the search costs little beside an answer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evals.errors import EvalError
from evals.evaluation import Evaluation
from evals.metrics.answers import normalise_answer
from evals.metrics.values import extract_values
from evals.outputs import Output
from evals.router import Router, RouterReport, fit_router, judge_router
from evals.samples import Sample
from evals.scoring import group_by_arm
from evals.statistics.intervals import Floats

FEATURES = (
    "words",
    "values",
    "long words",
    "names",
    "asks for an amount or a time",
    "asks for a reason or a way",
    "earlier turns",
    "passages",
    "best overlap",
    "overlap ahead of the second",
    "mean overlap",
    "words found anywhere",
    "length of the passages",
)
_AMOUNT = re.compile(r"\b(how (many|much|long|often|far|old)|when|what (time|date|price|year))\b")
_REASON = re.compile(r"\b(why|how (do|does|can|to|should|is|are))\b")
_SMALL = 4  # letters; shorter words say little about the subject


@dataclass(frozen=True, slots=True)
class Routing:
    """Whether choosing per question pays; `router` only where it does.

    Attributes:
        questions: those that every arm has a score for.
        weights: by arm, the standardised weight of each feature, for people to read.
    """

    report: RouterReport
    questions: int
    clusters: int
    router: Router | None
    weights: Mapping[str, Mapping[str, float]]


def question_features(
    question: str, passages: Sequence[str], earlier_turns: int = 0
) -> tuple[float, ...]:
    """Give the numbers named by `FEATURES` for one question and what a search found for it."""
    words = normalise_answer(question).split()
    subject = {word for word in words if len(word) >= _SMALL}
    found = [set(normalise_answer(text).split()) for text in passages]
    overlaps = sorted((len(subject & text) / max(1, len(subject)) for text in found), reverse=True)
    best = overlaps[0] if overlaps else 0.0
    second = overlaps[1] if len(overlaps) > 1 else 0.0
    everywhere = subject & set().union(*found) if found else set()
    lower = question.lower()
    return (
        float(np.log1p(len(words))),
        float(len(extract_values(question))),
        float(sum(len(word) > 8 for word in words)),
        float(sum(word[:1].isupper() for word in question.split()[1:])),
        float(bool(_AMOUNT.search(lower))),
        float(bool(_REASON.search(lower))),
        float(earlier_turns),
        float(len(passages)),
        best,
        best - second,
        float(np.mean(overlaps)) if overlaps else 0.0,
        len(everywhere) / max(1, len(subject)),
        float(np.log1p(sum(len(text) for text in passages))),
    )


def features_of(
    samples: Sequence[Sample], outputs: Mapping[str, Mapping[str, Output]], arms: Sequence[str]
) -> Floats:
    """Give the features of every sample, shape (n, 13), with the passages any arm was shown."""
    rows = []
    for sample in samples:
        given = (outputs[arm].get(sample.id) for arm in arms)
        shown = next((output.passages for output in given if output and output.passages), ())
        texts = [passage.text for passage in shown]
        rows.append(question_features(sample.question, texts, len(sample.history)))
    return np.array(rows, dtype=np.float64)


def route(
    evaluation: Evaluation,
    samples: Sequence[Sample],
    outputs: Sequence[Output],
    *,
    arms: Sequence[str] = (),
    costs: Mapping[str, float] | None = None,
    alpha: float = 0.05,
) -> Routing:
    """Train and calibrate a router on an evaluation, and say whether it pays.

    Args:
        evaluation: the scores; the primary metric is what a good answer is.
        samples: the questions, `outputs` the answers it was made of.
        outputs: of all arms.
        arms: to choose between; default all candidates.
        costs: by arm, of one answer in units of one right answer; default 0.
        alpha: chance of deploying a router that does not pay.

    Raises:
        EvalError: on an unknown arm, fewer than two arms, or fewer than 20 independent groups.
    """
    table = evaluation.table
    chosen = tuple(arms) or table.candidates
    for arm in (*chosen, *(costs or {})):
        if arm not in table.candidates:
            raise EvalError(f"no arm {arm!r} to route to; there are {', '.join(table.candidates)}")
    if len(chosen) < 2:
        raise EvalError("a router chooses between at least two arms")
    right = np.stack([table.values[arm][evaluation.primary] for arm in chosen], axis=1)
    kept = ~np.isnan(right).any(axis=1)
    ordered = sorted(samples, key=lambda sample: sample.id)
    features = features_of(ordered, group_by_arm(ordered, outputs), chosen)[kept]
    clusters, right = table.clusters[kept], right[kept]
    prices = [(costs or {}).get(arm, 0.0) for arm in chosen]
    report = judge_router(features, right, chosen, clusters, costs=prices, alpha=alpha)
    fitted = fit_router(features, right, chosen, clusters, costs=prices)
    weights = {
        arm: dict(zip(FEATURES, (round(float(w), 3) for w in model.weights), strict=True))
        for arm, model in zip(chosen, fitted.models, strict=True)
    }
    worth = report.verdict == "deploy"
    groups = len(np.unique(clusters))
    return Routing(report, int(kept.sum()), groups, fitted if worth else None, weights)


def router_record(router: Router) -> dict[str, object]:
    """Give everything a fitted router computes with, as JSON."""
    return {
        "features": list(FEATURES),
        "arms": list(router.arms),
        "costs": router.costs.tolist(),
        "models": [
            {
                "mean": model.mean.tolist(),
                "scale": model.scale.tolist(),
                "weights": model.weights.tolist(),
                "intercept": model.intercept,
            }
            for model in router.models
        ],
        "curves": [
            {"knots": curve.knots.tolist(), "values": curve.values.tolist()}
            for curve in router.curves
        ],
    }

"""Whether choosing the arm per question pays, and the model that would do it.

Cheap features, known before any answer is generated, predict for each arm whether it will be
right. The router takes the arm with the best prediction less its cost. It is worth deploying only
if it is shown to beat every single arm on questions it was not fitted on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evals.errors import EvalError
from evals.sentences import share
from evals.statistics.calibration import (
    Isotonic,
    Logistic,
    brier_score,
    calibration_error,
    fit_isotonic,
    fit_logistic,
)
from evals.statistics.clustered import paired_bounds
from evals.statistics.intervals import Floats, Interval, Ints


@dataclass(frozen=True, slots=True)
class ArmCalibration:
    """How good the predictions for one arm are, on questions not used to fit them."""

    arm: str
    brier: float
    calibration_error: float


@dataclass(frozen=True, slots=True)
class RouterReport:
    """Whether a router is worth it.

    Attributes:
        gain: utility of the router less that of the best single arm, on held-out clusters.
        accuracy: share of the questions on which best and second arm differ where the router
            took the right one of the two; None if they never differ.
        break_even: the accuracy at which a router would be as good as the best arm alone.
        shares: how often the router takes each arm.
    """

    verdict: Literal["deploy", "not worth it"]
    best_arm: str
    gain: Interval
    router_value: float
    best_value: float
    oracle_value: float
    accuracy: float | None
    break_even: float | None
    shares: tuple[tuple[str, float], ...]
    calibration: tuple[ArmCalibration, ...]
    sentence: str


@dataclass(frozen=True, slots=True, eq=False)
class Router:
    """A fitted router; only meant to be used where its report says "deploy"."""

    arms: tuple[str, ...]
    costs: Floats
    models: tuple[Logistic, ...]
    curves: tuple[Isotonic, ...]

    def probabilities(self, features: Floats) -> Floats:
        """Give the chance that each arm is right, shape (n, arms)."""
        columns = [
            curve(model.scores(features))
            for model, curve in zip(self.models, self.curves, strict=True)
        ]
        return np.stack(columns, axis=1)

    def choose(self, features: Floats) -> Ints:
        """Give the index of the arm to ask for each question, shape (n,)."""
        best = np.argmax(self.probabilities(features) - self.costs, axis=1)
        return np.asarray(best, dtype=np.int64)


def fit_router(
    features: Floats,
    right: Floats,
    arms: Sequence[str],
    clusters: Ints,
    *,
    costs: Sequence[float] | None = None,
    folds: int = 5,
) -> Router:
    """Fit one calibrated model per arm on all questions.

    The calibration curve is fitted on predictions for clusters the logistic model did not see.

    Args:
        features: shape (n, d), known before generation.
        right: shape (n, arms), 1 where the arm was right; graded scores are cut at one half.
        arms: names of the columns.
        clusters: shape (n,).
        costs: of one answer of each arm, in units of one right answer; default 0.
        folds: parts for the calibration.
    """
    outcomes = (np.asarray(right) > 0.5).astype(np.float64)
    part = _folds(clusters, folds)
    models, curves = [], []
    for column in outcomes.T:
        unseen = np.zeros(len(column))
        for k in range(folds):
            rest = part != k
            unseen[~rest] = fit_logistic(features[rest], column[rest]).scores(features[~rest])
        curves.append(fit_isotonic(unseen, column))
        models.append(fit_logistic(features, column))
    return Router(tuple(arms), _costs(costs, len(arms)), tuple(models), tuple(curves))


def judge_router(
    features: Floats,
    right: Floats,
    arms: Sequence[str],
    clusters: Ints,
    *,
    costs: Sequence[float] | None = None,
    alpha: float = 0.05,
    folds: int = 5,
) -> RouterReport:
    """Say whether a router would beat every single arm, by cross-fitting over clusters.

    Raises:
        EvalError: on fewer than two arms, fewer than 20 clusters, or shapes that do not fit.
    """
    right = np.asarray(right, dtype=np.float64)
    if right.shape != (len(features), len(arms)) or len(arms) < 2:
        raise EvalError(f"scores of shape {right.shape} for {len(features)} questions, {arms}")
    if np.isnan(right).any():
        raise EvalError("a router needs a score of every arm for every question")
    if len(np.unique(clusters)) < 20:
        raise EvalError(f"a router needs 20 clusters, got {len(np.unique(clusters))}")
    price = _costs(costs, len(arms))
    part = _folds(clusters, folds)
    chosen = np.zeros(len(right), dtype=np.int64)
    predicted = np.zeros_like(right)
    for k in range(folds):
        rest = part != k
        router = fit_router(features[rest], right[rest], arms, clusters[rest], costs=price.tolist())
        chosen[~rest] = router.choose(features[~rest])
        predicted[~rest] = router.probabilities(features[~rest])
    utility = right - price
    routed = utility[np.arange(len(right)), chosen]
    order = np.argsort(-utility.mean(axis=0), kind="stable")
    # Above every arm: the smallest lower bound counts, which needs no further correction.
    gains = [paired_bounds(routed - utility[:, j], clusters, 2 * alpha) for j in range(len(arms))]
    gain = gains[int(order[0])]
    lows = [found.low if found.low is not None else -1.0 for found in gains]
    verdict: Literal["deploy", "not worth it"] = "deploy" if min(lows) > 0 else "not worth it"
    accuracy, needed = _break_even(right, chosen, int(order[0]), int(order[1]))
    outcomes = (right > 0.5).astype(np.float64)
    calibration = tuple(
        ArmCalibration(
            arm,
            brier_score(predicted[:, j], outcomes[:, j]),
            calibration_error(predicted[:, j], outcomes[:, j]),
        )
        for j, arm in enumerate(arms)
    )
    shares = tuple((arm, float((chosen == j).mean())) for j, arm in enumerate(arms))
    best = arms[int(order[0])]
    return RouterReport(
        verdict,
        best,
        gain,
        float(routed.mean()),
        float(utility[:, order[0]].mean()),
        float(utility.max(axis=1).mean()),
        accuracy,
        needed,
        shares,
        calibration,
        _sentence(verdict, best, gain, accuracy, needed),
    )


def _break_even(
    right: Floats, chosen: Ints, best: int, second: int
) -> tuple[float | None, float | None]:
    """Router accuracy between two arms and the one needed: max(r, m) / (r + m)."""
    only_best, only_second = right[:, best] > right[:, second], right[:, second] > right[:, best]
    r, m = float(only_best.mean()), float(only_second.mean())
    if r + m == 0:
        return None, None
    differ = (only_best | only_second) & ((chosen == best) | (chosen == second))
    took_right = np.where(only_best, chosen == best, chosen == second)
    accuracy = float(took_right[differ].mean()) if differ.any() else None
    return accuracy, max(r, m) / (r + m)


def _sentence(
    verdict: str, best: str, gain: Interval, accuracy: float | None, needed: float | None
) -> str:
    low = -1.0 if gain.low is None else gain.low
    text = (
        f"Choosing the arm per question gains {gain.estimate or 0.0:+.3f} over always {best} "
        f"(at least {low:+.3f}). "
    )
    if verdict == "deploy":
        return text + "It is worth deploying."
    text += f"That is not worth it: always use {best}."
    if accuracy is not None and needed is not None:
        text += (
            f" Where the two best arms differ, the right one was picked {share(accuracy)} of the "
            f"time; it would have to be more than {share(needed)}."
        )
    return text


def _costs(costs: Sequence[float] | None, arms: int) -> Floats:
    given = np.zeros(arms) if costs is None else np.asarray(costs, dtype=np.float64)
    if given.shape != (arms,):
        raise EvalError(f"{len(given)} costs for {arms} arms")
    return given


def _folds(clusters: Ints, folds: int) -> Ints:
    """Part numbers by whole clusters, the same whatever the order of the rows."""
    numbers = np.unique(clusters, return_inverse=True)[1]
    order = np.random.default_rng(0).permutation(int(numbers.max()) + 1)
    return np.asarray(order[numbers] % folds, dtype=np.int64)

"""Probabilities from features: ridge logistic regression, isotonic calibration, and its errors."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from evals.statistics.intervals import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Logistic:
    """A fitted logistic model over standardised features."""

    mean: Floats
    scale: Floats
    weights: Floats
    intercept: float

    def scores(self, features: Floats) -> Floats:
        """Give the probability of each row, shape (n,), not yet calibrated."""
        result: Floats = expit((features - self.mean) / self.scale @ self.weights + self.intercept)
        return result


def fit_logistic(features: Floats, outcomes: Floats, ridge: float = 1.0) -> Logistic:
    """Fit P(outcome = 1) by ridge-penalised maximum likelihood.

    Args:
        features: shape (n, d).
        outcomes: shape (n,), 0 or 1.
        ridge: penalty of the squared weights of standardised features.
    """
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    x = (features - mean) / scale

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weights, intercept = parameters[:-1], parameters[-1]
        logits = x @ weights + intercept
        error = expit(logits) - outcomes
        value = float(np.logaddexp(0.0, logits).sum() - outcomes @ logits)
        gradient = np.append(x.T @ error + ridge * weights, error.sum())
        return value + 0.5 * ridge * float(weights @ weights), gradient

    share = min(max(float(outcomes.mean()), 1e-3), 1 - 1e-3)
    start = np.zeros(x.shape[1] + 1)
    start[-1] = np.log(share / (1 - share))
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return Logistic(mean, scale, found[:-1], float(found[-1]))


@dataclass(frozen=True, slots=True, eq=False)
class Isotonic:
    """A monotone step curve from raw to calibrated probability."""

    knots: Floats
    values: Floats

    def __call__(self, scores: Floats) -> Floats:
        """Give calibrated probabilities, interpolated between the knots."""
        return np.interp(scores, self.knots, self.values)


def fit_isotonic(scores: Floats, outcomes: Floats) -> Isotonic:
    """Fit the monotone curve nearest to the outcomes (pool adjacent violators).

    A half-right row at either end keeps probabilities off 0 and 1 where data are few.
    """
    order = np.argsort(scores, kind="stable")
    ordered = np.concatenate([[0.0], scores[order], [1.0]])
    targets = np.concatenate([[0.5], outcomes[order], [0.5]])
    knots, index = np.unique(ordered, return_inverse=True)
    sizes = np.bincount(index).astype(np.float64)
    means = np.bincount(index, weights=targets) / sizes
    return Isotonic(knots, np.asarray(isotonic_regression(means, weights=sizes).x))


def brier_score(probabilities: Floats, outcomes: Floats) -> float:
    """Give the mean squared error of the probabilities; 0 is perfect, .25 is a coin."""
    return float(((probabilities - outcomes) ** 2).mean())


def calibration_error(probabilities: Floats, outcomes: Floats, bins: int = 10) -> float:
    """Give the expected calibration error over bins of equal size, in [0, 1]."""
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [len(p) * abs(probabilities[p].mean() - outcomes[p].mean()) for p in parts]
    return float(sum(gaps)) / len(order)

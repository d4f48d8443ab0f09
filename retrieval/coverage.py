"""How likely a knowledge base covers a question: a small logistic model over one search.

The features need nothing beyond the search's own candidates. The shipped coefficients and how
they were trained stand in `coverage.json`; `python -m benchmarks.coverage` makes and judges them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.index import Candidate
from retrieval.types import located_text
from retrieval.words import content_words, fold

FEATURES = (
    "best_cosine",
    "rise_over_mean",
    "terms_in_best",
    "terms_in_best_three",
    "sides_agree",
)

_DEPTH = 15
_SHIPPED = Path(__file__).with_name("coverage.json")


@dataclass(frozen=True, slots=True)
class CoverageModel:
    """P(covered) = sigmoid(intercept + sum of weight x (feature - mean) / scale)."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    def __post_init__(self) -> None:
        if {len(self.mean), len(self.scale), len(self.weights)} != {len(FEATURES)}:
            raise ValueError(f"a coverage model needs {len(FEATURES)} means, scales and weights")

    def probability(self, question: str, candidates: Sequence[Candidate]) -> float:
        """In [0, 1], for candidates best first; 0 without any."""
        if not candidates:
            return 0.0
        logit = self.intercept
        for value, mean, scale, weight in zip(
            coverage_features(question, candidates),
            self.mean,
            self.scale,
            self.weights,
            strict=True,
        ):
            logit += weight * (value - mean) / scale
        return 1.0 / (1.0 + math.exp(-max(min(logit, 500.0), -500.0)))

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return {
            "features": list(FEATURES),
            "mean": list(self.mean),
            "scale": list(self.scale),
            "weights": list(self.weights),
            "intercept": self.intercept,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "CoverageModel":
        """A stored model; ValueError if it was made for other features."""
        if tuple(data["features"]) != FEATURES:
            raise ValueError(f"the coverage model was made for {data['features']}; train it again")
        return cls(
            tuple(data["mean"]), tuple(data["scale"]), tuple(data["weights"]), data["intercept"]
        )


@cache
def shipped_coverage() -> CoverageModel:
    """The model that comes with the package."""
    return CoverageModel.from_json(json.loads(_SHIPPED.read_text("utf-8")))


def coverage_features(question: str, candidates: Sequence[Candidate]) -> tuple[float, ...]:
    """`FEATURES` of one search with both sides; candidates best first, at least one.

    Shares of terms weigh a question's content words by their rarity among the candidates, so a
    word that none of them has counts most. The rise is that of the best cosine over the mean; the
    sides agree when the same passage leads by cosine and by BM25.
    """
    near = candidates[:_DEPTH]
    cosines = [c.hit.dense_score or 0.0 for c in near]
    best = max(range(len(near)), key=cosines.__getitem__)
    lexical = [c.lexical_score or 0.0 for c in near]
    wordy = max(range(len(near)), key=lambda i: (lexical[i], cosines[i]))
    in_best, in_three = _term_shares(question, near)
    return (
        cosines[best],
        cosines[best] - sum(cosines) / len(cosines),
        in_best,
        in_three,
        float(wordy == best and lexical[wordy] > 0),
    )


def fit_coverage(
    features: NDArray[np.float64],
    labels: NDArray[np.float64],
    weights: NDArray[np.float64],
    penalty: float = 1.0,
) -> CoverageModel:
    """Logistic regression with an L2 penalty and no negative weight, by Newton's method.

    Every feature means "covered" the more, the higher it is; a negative weight would only fit the
    peculiarities of one collection. The most negative one is set to 0 until none is left.

    Args:
        features: (n, number of `FEATURES`).
        labels: (n,) 1 where the knowledge base covers the question, otherwise 0.
        weights: (n,) how much each row counts.
        penalty: strength of the prior that weights are 0; the intercept is free.

    Source: iteratively reweighted least squares, McCullagh, Nelder (1989), "Generalized Linear
    Models", 2nd edition.
    """
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    standard = (features - mean) / scale
    active = list(range(features.shape[1]))
    while True:
        beta = _newton(standard[:, active], labels, weights, penalty)
        if not active or beta[1:].min() >= 0:
            break
        active.pop(int(np.argmin(beta[1:])))
    slopes = np.zeros(features.shape[1])
    slopes[active] = beta[1:]
    return CoverageModel(
        tuple(mean.tolist()), tuple(scale.tolist()), tuple(slopes.tolist()), float(beta[0])
    )


def _newton(
    x: NDArray[np.float64],
    labels: NDArray[np.float64],
    weights: NDArray[np.float64],
    penalty: float,
) -> NDArray[np.float64]:
    """Intercept and slopes."""
    design = np.column_stack([np.ones(len(x)), x])
    prior = np.diag([0.0, *[penalty] * x.shape[1]])
    beta = np.zeros(design.shape[1])
    for _ in range(100):
        p = 1.0 / (1.0 + np.exp(-design @ beta))
        gradient = design.T @ (weights * (labels - p)) - prior @ beta
        # The small ridge keeps the step finite when all labels are the same.
        curvature = (design.T * (weights * p * (1 - p))) @ design + prior + 1e-9 * np.eye(len(beta))
        step = np.linalg.solve(curvature, gradient)
        beta = beta + step
        if np.abs(step).max() < 1e-9:
            break
    return beta


def _term_shares(question: str, candidates: Sequence[Candidate]) -> tuple[float, float]:
    """Rarity-weighted shares of the question's terms in the best passage and the best three."""
    terms = list(dict.fromkeys(map(fold, content_words(question))))
    if not terms:
        return 0.0, 0.0
    texts = [_text(candidate) for candidate in candidates]
    passages = [{term for term in terms if _has(text, term)} for text in texts]
    n = len(passages)
    rarity = {
        term: math.log(1 + (n + 0.5) / (0.5 + sum(term in passage for passage in passages)))
        for term in terms
    }
    total = sum(rarity.values())
    three = set().union(*passages[:3])
    best = sum(rarity[term] for term in terms if term in passages[0])
    return best / total, sum(rarity[term] for term in terms if term in three) / total


def _text(candidate: Candidate) -> str:
    hit = candidate.hit
    return located_text(hit.title, hit.heading_path, hit.text).lower()


def _has(text: str, term: str) -> bool:
    """Whether a word of `text` folds to `term`.

    All words that do begin with all but the term's last character, so most of the text is passed
    over by a plain search: folding every word took as long as the search in the index.
    """
    start = term[:-1] or term
    at = text.find(start)
    while at >= 0:
        if at == 0 or not text[at - 1].isalnum():
            end = at + len(start)
            while end < len(text) and text[end].isalnum():
                end += 1
            if fold(text[at:end]) == term:
                return True
        at = text.find(start, at + 1)
    return False

"""A classifier of house style: character n-grams and a logistic model, on numpy and scipy.

Train it on texts that the adapter did not see, and read its score beside the task's: copying a
trained reply word for word also scores high.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit

from evals.errors import MetricError
from evals.metrics.answers import strip_citations
from evals.statistics.intervals import Floats

_BUCKETS = 2**15
_ORDERS = (2, 3, 4)


@dataclass(frozen=True, slots=True, eq=False)
class StyleModel:
    """Weights over hashed character n-grams; call it for P(in house style).

    Attributes:
        weights: (32768,) one per bucket; `idf` likewise.
        held_out_auc: area under the ROC curve on texts left out of training, by folds.
    """

    weights: Floats
    idf: Floats
    bias: float
    held_out_auc: float

    def probability(self, text: str) -> float:
        """Give the probability, in (0, 1), that the text is in the house style."""
        features = _features([text], self.idf)
        return float(expit(features @ self.weights + self.bias)[0])

    def __call__(self, text: str) -> bool:
        """Whether the text is more likely than not in the house style; fits `style=`."""
        return self.probability(text) >= 0.5


def train_style(
    house: Sequence[str], others: Sequence[str], *, l2: float = 1e-2, folds: int = 5, seed: int = 0
) -> StyleModel:
    """Learn to tell the house's texts from others, both classes weighing the same.

    Args:
        house: texts in the house style.
        others: texts on the same subjects that are not, such as the bare model's replies.
        l2: penalty on the weights.
        folds: parts for the held-out AUC.
        seed: how texts fall into folds.

    Raises:
        MetricError: if a class has fewer texts than there are folds.
    """
    fewest = min(len(house), len(others))
    if fewest < folds:
        raise MetricError(
            f"{len(house)} house texts and {len(others)} others are too few for {folds} folds"
        )
    texts = [*house, *others]
    labels = np.array([1.0] * len(house) + [0.0] * len(others))
    rng = np.random.default_rng(seed)
    part = np.concatenate(
        [rng.permutation(np.arange(len(kind)) % folds) for kind in (house, others)]
    )
    held_out = np.zeros(len(texts))
    for fold in range(folds):
        train = [text for text, p in zip(texts, part, strict=True) if p != fold]
        model = _fit(train, labels[part != fold], l2)
        test = [text for text, p in zip(texts, part, strict=True) if p == fold]
        held_out[part == fold] = _features(test, model.idf) @ model.weights + model.bias
    final = _fit(texts, labels, l2)
    return StyleModel(final.weights, final.idf, final.bias, _auc(held_out, labels))


def _fit(texts: Sequence[str], labels: Floats, l2: float) -> StyleModel:
    counts = _counts(texts)
    seen = np.asarray((counts > 0).sum(axis=0), dtype=np.float64).ravel()
    idf = np.log((1 + len(texts)) / (1 + seen)) + 1
    rows = _normalise(counts, idf)
    weight = np.where(labels == 1, 0.5 / labels.sum(), 0.5 / (1 - labels).sum())
    sign = 2 * labels - 1

    def loss(point: Floats) -> tuple[float, Floats]:
        margin = sign * (rows @ point[:-1] + point[-1])
        slope = -weight * sign * expit(-margin)
        value = float((weight * np.logaddexp(0, -margin)).sum()) + 0.5 * l2 * float(
            point[:-1] @ point[:-1]
        )
        return value, np.append(rows.T @ slope + l2 * point[:-1], slope.sum())

    found = minimize(loss, np.zeros(_BUCKETS + 1), jac=True, method="L-BFGS-B")
    return StyleModel(found.x[:-1], idf, float(found.x[-1]), float("nan"))


def _features(texts: Sequence[str], idf: Floats) -> sparse.csr_matrix:
    return _normalise(_counts(texts), idf)


def _normalise(counts: sparse.csr_matrix, idf: Floats) -> sparse.csr_matrix:
    rows = counts.copy()
    rows.data = 1 + np.log(rows.data)
    rows = rows @ sparse.diags(idf)
    length = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    return sparse.diags(1 / np.maximum(length, 1e-12)) @ rows


def _counts(texts: Sequence[str]) -> sparse.csr_matrix:
    data: list[float] = []
    columns: list[int] = []
    ends = [0]
    for text in texts:
        plain = f" {' '.join(strip_citations(text).split())} "
        grams = Counter(
            zlib.crc32(plain[i : i + order].encode("utf-8", "replace")) % _BUCKETS
            for order in _ORDERS
            for i in range(len(plain) - order + 1)
        )
        columns += grams.keys()
        data += grams.values()
        ends.append(len(columns))
    return sparse.csr_matrix(
        (np.asarray(data, dtype=np.float64), columns, ends), shape=(len(texts), _BUCKETS)
    )


def _auc(scores: Floats, labels: Floats) -> float:
    """Mann-Whitney: how often a house text scores above another one, ties half."""
    house, others = scores[labels == 1], scores[labels == 0]
    above = (house[:, None] > others).mean() + 0.5 * (house[:, None] == others).mean()
    return float(above)

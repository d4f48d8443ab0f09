"""Whether the rows are about what people ask: clusters of real traffic and the rows near them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NEAR = 0.5
_ITERATIONS = 25


@dataclass(frozen=True, slots=True)
class TrafficCluster:
    """A group of like questions: its share of the traffic and of the rows, in [0, 1]."""

    traffic_share: float
    rows_share: float
    covered: float
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """`covered` is the share of traffic with a row at cosine `near` or above, in [0, 1].

    `divergence` is the total variation distance between the shares of traffic and rows over the
    clusters: 0 where rows mirror the traffic, 1 where they share no cluster.
    """

    covered: float
    near: float
    divergence: float
    clusters: tuple[TrafficCluster, ...]


def measure_coverage(
    traffic: NDArray[np.float32],
    rows: NDArray[np.float32],
    questions: Sequence[str],
    *,
    clusters: int = 12,
    near: float = _NEAR,
) -> Coverage:
    """Compare the questions people asked with the rows.

    Args:
        traffic: Embeddings of the questions asked, shape (m, d), of length 1, m >= 1.
        rows: Embeddings of the rows' questions, shape (n, d), of length 1, n >= 1.
        questions: The questions asked, for examples.
        clusters: At most so many groups; the greatest share comes first.
        near: A question is covered by a row of this cosine or above.
    """
    centres = _spherical_k_means(traffic, min(clusters, len(np.unique(traffic, axis=0))))
    home = (traffic @ centres.T).argmax(axis=1)
    row_home = (rows @ centres.T).argmax(axis=1)
    best = (traffic @ rows.T).max(axis=1)
    found = []
    for cluster in range(len(centres)):
        mine = np.flatnonzero(home == cluster)
        if not len(mine):
            continue
        typical = mine[np.argsort(-(traffic[mine] @ centres[cluster]), kind="stable")]
        examples = tuple(dict.fromkeys(questions[i] for i in typical))[:3]
        found.append(
            TrafficCluster(
                len(mine) / len(traffic),
                float((row_home == cluster).mean()),
                float((best[mine] >= near).mean()),
                examples,
            )
        )
    found.sort(key=lambda cluster: -cluster.traffic_share)
    divergence = 0.5 * sum(abs(c.traffic_share - c.rows_share) for c in found)
    return Coverage(float((best >= near).mean()), near, divergence, tuple(found))


def _spherical_k_means(vectors: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Centres by cosine; the first ones lie far apart (k-means++ without chance)."""
    centres = [vectors[0]]
    while len(centres) < k:
        nearest = (vectors @ np.stack(centres).T).max(axis=1)
        centres.append(vectors[int(nearest.argmin())])
    found = np.stack(centres)
    for _ in range(_ITERATIONS):
        home = (vectors @ found.T).argmax(axis=1)
        sums = np.zeros_like(found)
        np.add.at(sums, home, vectors)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        updated = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), found)
        if np.allclose(updated, found):
            break
        found = updated.astype(np.float32)
    return found

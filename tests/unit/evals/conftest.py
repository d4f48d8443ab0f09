"""Made-up questions and answers of four arms whose true quality is known."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import settings

from evals.outputs import Output
from evals.samples import Sample
from evals.scoring import LATENCY, ScoreTable

settings.register_profile("no-deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no-deadline")


@dataclass(frozen=True)
class World:
    samples: tuple[Sample, ...]
    outputs: tuple[Output, ...]


def build_world(
    quality: Mapping[str, float],
    n: int = 200,
    seed: int = 0,
    latency_s: Mapping[str, float] | None = None,
    cluster_size: int = 1,
    abstain: float = 0.9,
) -> World:
    """Every tenth question has no answer; a right answer cites its one gold document."""
    rng = np.random.default_rng(seed)
    samples, outputs = [], []
    for i in range(n):
        answerable = i % 10 != 9
        sample = Sample(
            f"q{i:04d}",
            f"What is fact {i}?",
            (f"value {i}",) if answerable else None,
            (f"doc{i}",) if answerable else (),
            f"c{i // cluster_size}",
            tags=("odd" if i % 2 else "even",),
        )
        samples.append(sample)
        for arm, share in quality.items():
            right = rng.random() < share
            quits = not answerable and rng.random() < abstain
            slow = (latency_s or {}).get(arm, 0.2)
            outputs.append(
                Output(
                    sample.id,
                    arm,
                    "I could not find this." if quits else f"value {i}" if right else "no idea",
                    citations=(f"doc{i}",) if right and answerable else (),
                    retrieved=(f"doc{i}", "other"),
                    abstained=quits,
                    latency_s=slow * float(rng.lognormal(0, 0.1)),
                    prompt_tokens=100,
                    completion_tokens=5,
                    meta={"passages": [{"id": f"doc{i}", "text": f"Fact {i} has value {i}."}]},
                )
            )
    return World(tuple(samples), tuple(outputs))


def build_table(
    scores: Mapping[str, Sequence[float]],
    clusters: Sequence[int] | None = None,
    baselines: frozenset[str] = frozenset(),
    **other: Mapping[str, Sequence[float]],
) -> ScoreTable:
    """A score table of the primary metric only, or of the metrics named in `other` as well."""
    n = len(next(iter(scores.values())))
    values = {
        arm: {
            "token_f1": np.asarray(column, dtype=np.float64),
            LATENCY: np.full(n, 0.1),
            **{name: np.asarray(by_arm[arm], dtype=np.float64) for name, by_arm in other.items()},
        }
        for arm, column in scores.items()
    }
    numbers = np.arange(n) if clusters is None else np.asarray(clusters, dtype=np.int64)
    ids = tuple(f"q{i}" for i in range(n))
    return ScoreTable(ids, numbers, tuple(scores), baselines, values)


@pytest.fixture
def world() -> Callable[..., World]:
    return build_world


@pytest.fixture
def score_table() -> Callable[..., ScoreTable]:
    return build_table

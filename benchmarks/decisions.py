"""Are decisions right as often as they promise? Arms and intervals with known truth.

  python -m benchmarks.decisions [--cases 1500] [--runs 4000] [--only bank|coverage|speed] [--json]

`bank`: random use cases of four arms with known quality and latency, clustered questions, five
looks at up to 1,000 questions; every rule for choosing is counted for wrong commitments and for
the answers it needed. `coverage`: how often each 95 % interval holds the truth, with clusters and
under peeking. `speed`: 10,000 samples, 4 arms, 10,000 bootstrap draws.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from evals.arms import COST_ORDER
from evals.decision_spec import DecisionSpec, max_p95_latency
from evals.evidence import gather_evidence
from evals.rules import Outcome, settle
from evals.scoring import LATENCY, ScoreTable
from evals.statistics.agreement import krippendorff_alpha
from evals.statistics.clustered import ClusterBootstrap, cluster_t, paired_bounds, sign_flip_tests
from evals.statistics.intervals import Interval, cluster_totals
from evals.statistics.prediction_powered import prediction_powered_mean
from evals.statistics.quantiles import percentile_interval
from evals.statistics.rates import newcombe_paired, rate_interval
from evals.statistics.sequential import asymptotic_sequence, empirical_bernstein_sequence

Floats = NDArray[np.float64]
LOOKS = (100, 200, 400, 700, 1000)
LIMIT_S, ALLOWED = 1.0, 0.05
SPREAD = 0.25  # of the difficulty that all questions of a cluster share
OWN = 0.10  # of what an arm does differently on a cluster


@dataclass(frozen=True, slots=True)
class UseCase:
    """Four arms: answers to 1,000 questions, and the truth behind them."""

    scores: Floats  # (n, 4)
    slow: Floats  # (n, 4), 1 where the answer took too long
    clusters: NDArray[np.int64]
    quality: Floats  # (4,)
    violation: Floats  # (4,)

    def table(self, n: int) -> ScoreTable:
        """The score table of the first questions, as `evals.evaluate` would give it."""
        values = {
            arm: {
                "token_f1": self.scores[:n, j],
                LATENCY: np.where(self.slow[:n, j] > 0, 2 * LIMIT_S, 0.5 * LIMIT_S),
            }
            for j, arm in enumerate(COST_ORDER)
        }
        ids = tuple(map(str, range(n)))
        return ScoreTable(ids, self.clusters[:n], COST_ORDER, frozenset(), values)

    def looks(self) -> list[int]:
        """The planned looks, each moved to the end of its last cluster."""
        ends = np.flatnonzero(np.diff(self.clusters)) + 1
        return [int(ends[min(np.searchsorted(ends, n), len(ends) - 1)]) for n in LOOKS]

    def wrong(self, outcome: Outcome, margin: float) -> bool:
        """Whether a commitment is wrong; an undecided case commits to nothing."""
        if outcome.status == "UNDECIDED":
            return False
        feasible = self.violation <= ALLOWED
        if outcome.choice is None:
            return bool(feasible.any())
        j = COST_ORDER.index(outcome.choice)
        best = self.quality[feasible].max() if feasible.any() else 0.0
        return not feasible[j] or bool(self.quality[j] < best - margin)


def draw(rng: np.random.Generator, n: int = 1000, same: bool = False) -> UseCase:
    """A random use case; with `same` all arms are equally good and fast."""
    target = np.clip(rng.beta(2, 2) + rng.normal(0, 0.12, 4), 0.05, 0.95)
    violation = np.where(rng.random(4) < 0.25, rng.uniform(0.08, 0.3, 4), rng.uniform(0, 0.03, 4))
    if same:
        target, violation = np.full(4, target[0]), np.full(4, 0.01)
    sizes = rng.geometric(0.25, n + 60)
    clusters = np.repeat(np.arange(len(sizes)), sizes)[: n + 40]
    last = int(clusters[n])
    clusters = clusters[: n + int((clusters[n:] == last).sum())]
    count = int(clusters.max()) + 1
    shared = rng.uniform(-SPREAD, SPREAD, (count, 1))
    own = rng.uniform(-OWN, OWN, (count, 4))
    chance = np.clip(target + shared + own, 0, 1)[clusters]
    many = np.random.default_rng(0).uniform(-1, 1, (2, 20_000))
    offsets = many[0] * SPREAD + many[1] * OWN
    quality = np.array([np.clip(t + offsets, 0, 1).mean() for t in target])
    size = len(clusters)
    scores = (rng.random((size, 4)) < chance).astype(np.float64)
    slow = (rng.random((size, 4)) < violation).astype(np.float64)
    return UseCase(scores, slow, clusters, quality, violation)


def sequential(case: UseCase, spec: DecisionSpec) -> tuple[Outcome, int]:
    """Decide in looks through the product's own rules; dropped arms answer nothing more."""
    dropped: set[str] = set()
    used = answered = 0
    for look, n in enumerate(case.looks(), start=1):
        answered += (n - used) * (4 - len(dropped))
        used = n
        evidence = gather_evidence(case.table(n), spec, look=look, dropped=dropped)
        outcome = settle(evidence, spec)
        dropped |= {rejection.arm for rejection in outcome.rejected}
        if outcome.status != "UNDECIDED":
            break
    return outcome, answered


def argmax(case: UseCase, n: int) -> tuple[Outcome, int]:
    """Take the best mean among the arms whose share of slow answers is allowed."""
    kept = [j for j in range(4) if case.slow[:n, j].mean() <= ALLOWED]
    if not kept:
        return Outcome("INFEASIBLE", None, (), (), ()), 4 * n
    arm = COST_ORDER[max(kept, key=lambda j: case.scores[:n, j].mean())]
    return Outcome("WINNER", arm, (arm,), (), ()), 4 * n


def peeking(case: UseCase) -> tuple[Outcome, int]:
    """Stop at the first plain 95 % test that shows a best arm, looking every 50 questions."""
    for n in range(50, 1001, 50):
        scores = case.scores[:n]
        kept = [j for j in range(4) if case.slow[:n, j].mean() <= ALLOWED]
        if not kept:
            return Outcome("INFEASIBLE", None, (), (), ()), 4 * n
        best = max(kept, key=lambda j: scores[:, j].mean())
        gaps = [scores[:, best] - scores[:, j] for j in kept if j != best]
        if all(g.std() > 0 and g.mean() > 1.96 * g.std(ddof=1) / n**0.5 for g in gaps):
            break
    return Outcome("WINNER", COST_ORDER[best], (), (), ()), 4 * n


def bank(cases: int, seed: int, show: bool) -> list[dict[str, Any]]:
    """Every rule on the same random use cases."""
    limits = (max_p95_latency(LIMIT_S),)
    spec = DecisionSpec(margin=0.05, looks=len(LOOKS), constraints=limits)
    rules: dict[str, tuple[float, Callable[[UseCase], tuple[Outcome, int]]]] = {
        "Tandem, margin .05": (0.05, lambda c: sequential(c, spec)),
        "Tandem, margin .03": (0.03, lambda c: sequential(c, replace(spec, margin=0.03))),
        "Tandem, .05, late looks (O'Brien-Fleming)": (
            0.05,
            lambda c: sequential(c, replace(spec, spending="obrien_fleming")),
        ),
        "best mean of 100": (0.05, lambda c: argmax(c, 100)),
        "best mean of 1000": (0.05, lambda c: argmax(c, 1000)),
        "peeking every 50": (0.05, peeking),
    }
    rng = np.random.default_rng(seed)
    counts = {name: dict.fromkeys(("wrong", "undecided", "answers"), 0) for name in rules}
    for _ in _progress(range(cases), "random use cases", show):
        case = draw(rng)
        for name, (margin, rule) in rules.items():
            outcome, answers = rule(case)
            counts[name]["wrong"] += case.wrong(outcome, margin)
            counts[name]["undecided"] += outcome.status == "UNDECIDED"
            counts[name]["answers"] += answers
    return [
        {
            "rule": name,
            "cases": cases,
            "wrong": row["wrong"] / cases,
            "undecided": row["undecided"] / cases,
            "answers": row["answers"] / cases,
            "of_fixed_design": row["answers"] / cases / 4000,
        }
        for name, row in counts.items()
    ]


def same_arms(cases: int, seed: int, show: bool) -> dict[str, Any]:
    """A/A: four equally good arms; how often one of them wins by quality."""
    spec = DecisionSpec(margin=0.05, looks=len(LOOKS))
    rng = np.random.default_rng(seed)
    wins = 0
    for _ in _progress(range(cases), "the same arm four times", show):
        wins += sequential(draw(rng, same=True), spec)[0].status == "WINNER"
    return {"cases": cases, "wins_by_quality": wins / cases, "allowed": spec.alpha}


def advice(cases: int, seed: int, show: bool) -> list[dict[str, Any]]:
    """What right and wrong advice costs: hybrid is best, and is given .6 or .1 of the effort."""
    rows = []
    for name, effort in (
        ("equal", {}),
        ("right", {"hybrid": 0.6, "tuned": 0.2, "prompt": 0.1, "rag": 0.1}),
        ("wrong", {"hybrid": 0.1, "tuned": 0.1, "prompt": 0.6, "rag": 0.2}),
    ):
        rng = np.random.default_rng(seed)
        spec = DecisionSpec(margin=0.05, looks=len(LOOKS), effort=tuple(effort.items()))
        answers = wrong = 0
        for _ in _progress(range(cases), f"{name} advice", show):
            case = draw(rng)
            order = np.argsort(case.quality, kind="stable")
            case = replace(case, scores=case.scores[:, order], quality=case.quality[order])
            outcome, used = sequential(replace(case, violation=np.zeros(4)), spec)
            answers += used
            wrong += replace(case, violation=np.zeros(4)).wrong(outcome, 0.05)
        rows.append({"advice": name, "answers": answers / cases, "wrong": wrong / cases})
    return rows


def coverage(runs: int, seed: int, show: bool) -> list[dict[str, Any]]:
    """How often each interval holds the truth."""
    rows = []
    for name, lowest, highest, check in _CHECKS:
        rng = np.random.default_rng(seed)
        start = time.perf_counter()
        hits = sum(bool(check(rng)) for _ in _progress(range(runs), name, show))
        rows.append(
            {
                "interval": name,
                "coverage": hits / runs,
                "claim": [lowest, highest],
                "kept": lowest <= hits / runs <= highest,
                "runs": runs,
                "seconds": round(time.perf_counter() - start, 1),
            }
        )
    return rows


def _holds(interval: Interval, truth: float) -> bool:
    return (
        interval.low is not None
        and interval.high is not None
        and interval.low <= truth <= interval.high
    )


def _clustered(rng: np.random.Generator, count: int = 60) -> tuple[Floats, NDArray[np.int64]]:
    sizes = rng.integers(2, 11, count)
    ids = np.repeat(np.arange(count), sizes)
    chance = np.clip(0.6 + rng.uniform(-0.25, 0.25, count), 0, 1)[ids]
    return (rng.random(len(ids)) < chance).astype(np.float64), ids


def _graded(rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """Paired differences of F1-like scores, skewed and often 0; true mean .05."""
    ids = np.repeat(np.arange(80), rng.integers(1, 8, 80))
    effect = (rng.exponential(0.15, 80) - 0.15)[ids]
    moved = rng.random(len(ids)) < 0.5
    return np.where(moved, effect + rng.normal(0.1, 0.3, len(ids)), 0.0), ids


_BOOTSTRAP = ClusterBootstrap(1000)


def _wilson(rng: np.random.Generator) -> bool:
    return _holds(rate_interval(*_clustered(rng)), 0.6)


def _cluster_t(rng: np.random.Generator) -> bool:
    return _holds(cluster_t(*_graded(rng), support=(-1, 1)), 0.05)


def _bca(rng: np.random.Generator) -> bool:
    return _holds(_BOOTSTRAP.interval(*_graded(rng), support=(-1, 1)), 0.05)


def _bounds(rng: np.random.Generator) -> bool:
    return _holds(paired_bounds(*_graded(rng), 0.05), 0.05)


def _newcombe(rng: np.random.Generator) -> bool:
    return _holds(newcombe_paired(*rng.multinomial(300, [0.4, 0.1, 0.2, 0.3]).tolist()), 0.1)


def _p95(rng: np.random.Generator) -> bool:
    return _holds(percentile_interval(rng.lognormal(0, 0.5, 1000), 0.95), np.exp(1.6448536 * 0.5))


def _powered(rng: np.random.Generator) -> bool:
    good = rng.random(2100) < 0.7
    judged = np.where(rng.random(2100) < 0.85, good, ~good).astype(np.float64)
    labels = good[:100].astype(np.float64)
    return _holds(prediction_powered_mean(labels, judged[:100], judged[100:]).interval, 0.7)


_NOISE = 0.2  # each rater's label is random with this chance: true nominal alpha is (1 - .2)^2


def _agreement(rng: np.random.Generator) -> bool:
    truth = rng.integers(0, 4, 150)
    ratings = np.stack(
        [np.where(rng.random(150) < _NOISE, rng.integers(0, 4, 150), truth) for _ in range(3)], 1
    ).astype(np.float64)
    return _holds(krippendorff_alpha(ratings, resamples=1000), (1 - _NOISE) ** 2)


def _anytime(rng: np.random.Generator) -> bool:
    low, high = empirical_bernstein_sequence((rng.random(1500) < 0.7).astype(np.float64))
    return bool(((low <= 0.7) & (high >= 0.7)).all())


def _anytime_large(rng: np.random.Generator) -> bool:
    low, high = asymptotic_sequence((rng.random(1500) < 0.7).astype(np.float64))
    return bool(((low <= 0.7) & (high >= 0.7)).all())


def _five_looks(rng: np.random.Generator) -> bool:
    spec = DecisionSpec(looks=5)
    d = rng.choice([-1.0, 0.0, 1.0], p=[0.15, 0.7, 0.15], size=1000)
    found = [
        paired_bounds(d[:n], np.arange(n), spec.alpha_at(look))
        for look, n in enumerate(LOOKS, start=1)
    ]
    return all(_holds(interval, 0.0) for interval in found)


_Check = Callable[[np.random.Generator], bool]
_CHECKS: tuple[tuple[str, float, float, _Check], ...] = (
    ("rate, clusters (Wilson, effective n)", 0.935, 0.97, _wilson),
    ("paired difference, clusters (t)", 0.935, 0.97, _cluster_t),
    ("paired difference, clusters (BCa bootstrap)", 0.935, 0.97, _bca),
    ("paired difference, decision bounds", 0.935, 0.97, _bounds),
    ("paired rates (Newcombe)", 0.935, 0.97, _newcombe),
    ("p95 latency (order statistics)", 0.935, 0.97, _p95),
    ("judge and 100 labels (PPI++)", 0.935, 0.97, _powered),
    ("agreement (Krippendorff, item bootstrap)", 0.935, 0.97, _agreement),
    ("five looks, all of them (alpha split)", 0.95, 1.0, _five_looks),
    ("every moment to 1,500 (empirical Bernstein)", 0.95, 1.0, _anytime),
    ("every moment to 1,500 (asymptotic)", 0.94, 1.0, _anytime_large),
)


def speed(samples: int = 10_000, draws: int = 10_000) -> dict[str, Any]:
    """All intervals and tests of four arms: 4 means, 6 paired differences, 6 sign-flip tests."""
    rng = np.random.default_rng(0)
    columns = rng.random((samples, 4))
    clusters = np.arange(samples)
    start = time.perf_counter()
    pairs = [(i, j) for i in range(4) for j in range(i)]
    table = np.concatenate(
        [columns, np.stack([columns[:, i] - columns[:, j] for i, j in pairs], axis=1)], axis=1
    )
    found = ClusterBootstrap(draws).intervals(table, clusters, support=(-1.0, 1.0))
    bootstrap = time.perf_counter() - start
    totals = np.stack([cluster_totals(column, clusters) for column in table.T[4:]], axis=1)
    tests = sign_flip_tests(totals, draws=draws)
    return {
        "samples": samples,
        "draws": draws,
        "intervals": len(found),
        "tests": len(tests),
        "bootstrap_s": round(bootstrap, 2),
        "total_s": round(time.perf_counter() - start, 2),
    }


def _progress(items: range, label: str, show: bool) -> Iterator[int]:
    yield from track(items, label, console=Console(stderr=True), disable=not show, transient=True)


def _print(result: dict[str, Any]) -> None:
    console = Console()
    for name, rows in result.items():
        rows = rows if isinstance(rows, list) else [rows]
        table = Table(title=name, title_justify="left")
        for column in rows[0]:
            table.add_column(column)
        for row in rows:
            table.add_row(*(f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()))
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=1500)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--only", choices=("bank", "coverage", "speed"))
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--out", type=Path, help="write the JSON here")
    options = parser.parse_args()
    show, seed = not options.json, options.seed
    result: dict[str, Any] = {}
    if options.only in (None, "speed"):
        result["speed"] = speed()
    if options.only in (None, "bank"):
        result["bank"] = bank(options.cases, seed, show)
        result["same_arm"] = same_arms(options.cases, seed, show)
        result["advice"] = advice(max(1, options.cases // 5), seed, show)
    if options.only in (None, "coverage"):
        result["coverage"] = coverage(options.runs, seed, show)
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n", "utf-8")
    if options.json:
        print(text)
    else:
        _print(result)


if __name__ == "__main__":
    main()

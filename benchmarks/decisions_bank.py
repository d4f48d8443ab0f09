"""Arms with known truth: random use cases, rules for choosing, and how often each is wrong."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from evals.arms import COST_ORDER
from evals.decision_spec import DecisionSpec, max_p95_latency
from evals.evidence import gather_evidence
from evals.rules import Outcome, settle
from evals.scoring import LATENCY, ScoreTable

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
        return [int(ends[min(int(np.searchsorted(ends, n)), len(ends) - 1)]) for n in LOOKS]

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
    for _ in progress(range(cases), "random use cases", show):
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
    for _ in progress(range(cases), "the same arm four times", show):
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
        for _ in progress(range(cases), f"{name} advice", show):
            case = draw(rng)
            order = np.argsort(case.quality, kind="stable")
            case = replace(case, scores=case.scores[:, order], quality=case.quality[order])
            outcome, used = sequential(replace(case, violation=np.zeros(4)), spec)
            answers += used
            wrong += replace(case, violation=np.zeros(4)).wrong(outcome, 0.05)
        rows.append({"advice": name, "answers": answers / cases, "wrong": wrong / cases})
    return rows


def progress(items: range, label: str, show: bool) -> Iterator[int]:
    """Go through the items with a bar on stderr."""
    yield from track(items, label, console=Console(stderr=True), disable=not show, transient=True)

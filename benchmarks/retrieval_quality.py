"""Retrieval quality on four question sets, stage by stage.

  python -m benchmarks.retrieval_quality --data DATA --models MODELS [--out result.json]

See `benchmarks.retrieval_sets` for the sets. Each set is halved by gold document (seeded hash):
fusion is tuned on the first halves together, everything reported is from the second. recall@k is
the share of questions with a gold hit among the first k; nDCG@10 counts a hit that shows a gold
passage not shown before, against as many such hits in front. `in_budget` is the share with a gold
hit among those that fit into 3,000 characters, taken best first. Intervals are percentiles of 2,000
bootstrap resamples of gold documents, paired, of the difference to the better of the two single
searches (the better one on the same questions, so the comparison is strict). With neighbours a
hit is longer, so only `in_budget` compares them fairly; `characters_in_5` is the cost of five hits.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.followups import measure as measure_followups
from benchmarks.retrieval_sets import NAMES, Case, Filled, QuestionSet, fill, half_of, load
from retrieval.embedding import Embedder
from retrieval.fusion import fuse
from retrieval.index import FusionOptions
from retrieval.search import TUNED_FUSION, HybridSearcher, SearchOptions
from retrieval.types import Hit

METRICS = ("recall@1", "recall@5", "mrr@10", "ndcg@10", "in_budget")
ARMS = {
    "dense": SearchOptions(lexical=False, coverage=False),
    "bm25": SearchOptions(dense=False, coverage=False),
    "hybrid_rrf": SearchOptions(fusion=FusionOptions(), coverage=False),
    "hybrid": SearchOptions(fusion=TUNED_FUSION, coverage=False),
    "hybrid_mmr_0.9": SearchOptions(diversity=0.9, candidates=30, coverage=False),
    "hybrid_mmr_0.7": SearchOptions(diversity=0.7, candidates=30, coverage=False),
    "hybrid_neighbours": SearchOptions(neighbours=1, coverage=False),
}
GRID = [
    *[FusionOptions(k, 1.0, w) for k in (0, 2, 10, 60) for w in (0.3, 0.5, 1.0, 2.0)],
    *[FusionOptions(60, 1.0, w, method="dbsf") for w in (0.3, 0.5, 0.7, 1.0)],
    *[
        FusionOptions(60, share, round(1 - share, 2), method="scores")
        for share in (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    ],
]
_DEPTH = 50
_BUDGET = 3_000
_RESAMPLES = 2_000
_SEED = 20261122


class KnownQuestions:
    """An encoder that looks questions up, embedded in batches beforehand."""

    def __init__(self, embedder: Embedder, questions: Sequence[str]) -> None:
        self._embedder = embedder
        vectors = embedder.embed_passages(list(questions))
        self._known = dict(zip(questions, vectors, strict=True))
        self.identity, self.dimension = embedder.identity, embedder.dimension

    def embed_passages(
        self, texts: Sequence[str], batch_size: int | None = None
    ) -> NDArray[np.float32]:
        """Not looked up."""
        return self._embedder.embed_passages(texts, batch_size)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Looked up where it is known."""
        return self._known[text] if text in self._known else self._embedder.embed_query(text)

    def count_tokens(self, text: str) -> int:
        """Of the embedder."""
        return self._embedder.count_tokens(text)


def grade(shown: Sequence[frozenset[str]], gold: frozenset[str]) -> list[float]:
    """`METRICS` but the last of one ranking, given what each hit shows."""
    seen: set[str] = set()
    gains = []
    for keys in shown[:10]:
        new = (keys & gold) - seen
        gains.append(float(bool(new)))
        seen |= new
    rank = next((i for i, gain in enumerate(gains, start=1) if gain), 0)
    discounts = 1 / np.log2(np.arange(2, 12))
    best = discounts[: min(len(gold), 10)].sum()
    ndcg = float((np.array(gains) * discounts[: len(gains)]).sum() / best) if gains else 0.0
    return [float(rank == 1), float(0 < rank <= 5), 1 / rank if rank else 0.0, ndcg]


def fitting(hits: Sequence[Hit]) -> list[Hit]:
    """The hits that fit into the budget together; one that does not is skipped."""
    left, kept = _BUDGET, []
    for hit in hits:
        if len(hit.text) <= left:
            left -= len(hit.text)
            kept.append(hit)
    return kept


def tune(sets: Sequence[QuestionSet], filled: Sequence[Filled], known: KnownQuestions) -> list[Any]:
    """Every fusion of the grid on the first halves: mean over sets and metrics, best first."""
    scores: dict[FusionOptions, list[float]] = {options: [] for options in GRID}
    for questions, each in zip(sets, filled, strict=True):
        cases = [case for case in questions.cases if half_of(case.cluster) == 0]
        graded: dict[FusionOptions, list[list[float]]] = {options: [] for options in GRID}
        for case in cases:
            vector = known.embed_query(case.question)
            sides = [
                each.index.search(case.scope, case.question, vector, _DEPTH, **mode)
                for mode in ({"lexical": False}, {"dense": False})
            ]
            shows = {hit.chunk_id: questions.shows(hit) for side in sides for hit in side}
            dense, lexical = ([(hit.chunk_id, hit.score) for hit in side] for side in sides)
            for options in GRID:
                ranked = fuse(dense, lexical, options)[:10]
                graded[options].append(grade([shows[r.id] for r in ranked], case.gold))
        for options in GRID:
            scores[options].append(float(np.mean(graded[options])))
    rows = [
        {
            "method": o.method,
            "k": o.k,
            "weights": [o.dense_weight, o.lexical_weight],
            "mean": round(float(np.mean(values)), 4),
        }
        for o, values in scores.items()
    ]
    return sorted(rows, key=lambda row: -float(str(row["mean"])))


def judge(
    questions: QuestionSet, filled: Filled, searcher: HybridSearcher
) -> tuple[dict[str, NDArray[np.float64]], list[Case], dict[str, float]]:
    """Graded rankings by arm (questions x metrics), the questions, and characters in five hits."""
    cases = [case for case in questions.cases if half_of(case.cluster) == 1]
    graded, lengths = {}, {}
    for arm, options in ARMS.items():
        rows, characters = [], 0
        for case in cases:
            hits: Sequence[Hit] = searcher.search(
                case.scope, case.question, 10, neighbours=filled.neighbours, options=options
            ).hits
            fits = any(questions.shows(hit) & case.gold for hit in fitting(hits))
            shown = [questions.shows(hit) for hit in hits]
            rows.append([*grade(shown, case.gold), float(fits)])
            characters += sum(len(hit.text) for hit in hits[:5])
        graded[arm] = np.array(rows)
        lengths[arm] = round(characters / len(cases))
    return graded, cases, lengths


def interval(differences: NDArray[np.float64], clusters: Sequence[str]) -> list[float]:
    """95 % percentile interval of the mean under resampling of clusters."""
    names, which = np.unique(np.array(clusters), return_inverse=True)
    sums = np.bincount(which, weights=differences, minlength=len(names))
    sizes = np.bincount(which, minlength=len(names))
    chance = np.random.default_rng(_SEED)
    picks = chance.integers(0, len(names), (_RESAMPLES, len(names)))
    means = sums[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    return [round(float(x), 4) for x in np.quantile(means, [0.025, 0.975])]


def report(
    graded: dict[str, NDArray[np.float64]], cases: Sequence[Case], lengths: dict[str, float]
) -> dict[str, Any]:
    clusters = [case.cluster for case in cases]
    result: dict[str, Any] = {"n": len(cases), "clusters": len(set(clusters)), "arms": {}}
    for arm, rows in graded.items():
        means = dict(zip(METRICS, (round(float(x), 4) for x in rows.mean(axis=0)), strict=True))
        result["arms"][arm] = means | {"characters_in_5": lengths[arm]}
    result["minus_better_single"] = {}
    for arm in graded.keys() - {"dense", "bm25"}:
        table = {}
        for place, metric in enumerate(METRICS):
            single = max(("dense", "bm25"), key=lambda one, m=place: graded[one][:, m].mean())
            difference = graded[arm][:, place] - graded[single][:, place]
            table[metric] = {
                "over": single,
                "difference": round(float(difference.mean()), 4),
                "interval": interval(difference, clusters),
            }
        result["minus_better_single"][arm] = table
    return result


def run(data: Path, models: Path) -> dict[str, Any]:
    embedder = Embedder(models / "all-minilm-l6-v2")
    sets = [load(name, data) for name in NAMES]
    known = KnownQuestions(embedder, [case.question for s in sets for case in s.cases])
    result: dict[str, Any] = {"embedding": embedder.identity, "sets": {}, "followups": {}}
    with tempfile.TemporaryDirectory() as folder:
        filled = [fill(s, embedder, Path(folder) / s.name) for s in sets]
        result["tuning"] = tune(sets, filled, known)
        for questions, each in zip(sets, filled, strict=True):
            searcher = HybridSearcher(each.index, known)
            result["sets"][questions.name] = report(*judge(questions, each, searcher))
            if questions.name in ("xquad_en", "policyqa"):

                def ask(case: Case, text: str, by: HybridSearcher = searcher) -> Sequence[Hit]:
                    return by.search(case.scope, text, 3).hits

                result["followups"][questions.name] = measure_followups(questions, ask)
            each.index.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = run(options.data, options.models)
    for name, table in result["sets"].items():
        print(f"{name}: {table['n']} questions, {table['clusters']} gold documents")
        for arm, means in table["arms"].items():
            values = "  ".join(f"{metric} {means[metric]:.3f}" for metric in METRICS)
            print(f"  {arm:20} {values}  {means['characters_in_5']} characters in 5")
        for metric, row in table["minus_better_single"]["hybrid"].items():
            low, high = row["interval"]
            print(f"  hybrid - {row['over']}: {metric} {row['difference']:+.3f} [{low}, {high}]")
    print(json.dumps({"tuning": result["tuning"][:5], "followups": result["followups"]}, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2), "utf-8")


if __name__ == "__main__":
    main()

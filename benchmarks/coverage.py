"""Trains and judges the model behind `SearchResult.coverage`.

  python -m benchmarks.coverage --data DATA --models MODELS [--write] [--out result.json]

Every question of the four sets is asked three times: of its own knowledge base (covered), of the
same with all gold passages taken out (not covered, hard: the rest of the document stays), and of
another set's knowledge base (not covered, easy). The model learns from one half of each set's gold
documents and is judged on the other; each set is also judged by a model that never saw it. Sets
count alike, and so do both labels. PolicyQA without its gold passages is judged apart and taught to
no model: a policy that says everything twice still answers, so those labels are mostly wrong. The
baseline is a logistic model of the best cosine alone, trained on the same rows. `--write` puts the
coefficients and a manifest into `retrieval/coverage.json`.
"""

import argparse
import hashlib
import json
import random
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import retrieval.coverage
from benchmarks.retrieval_sets import NAMES, Filled, QuestionSet, fill, half_of, load
from retrieval.coverage import FEATURES, CoverageModel, coverage_features, fit_coverage
from retrieval.embedding import Embedder
from retrieval.index import Candidate, IndexQuery
from retrieval.search import TUNED_FUSION

KINDS = ("covered", "gold_removed", "other_set")
_LIMIT = 60
_SEED = 20261122


@dataclass(frozen=True, slots=True)
class Row:
    """Features of one search and what they should tell."""

    set: str
    kind: str
    half: int
    features: tuple[float, ...]

    @property
    def label(self) -> float:
        """1 for covered."""
        return float(self.kind == "covered")


def collect(
    sets: dict[str, QuestionSet], filled: dict[str, Filled], embedder: Embedder
) -> list[Row]:
    """The rows of all sets; sets with many questions are cut to 800, seeded."""
    chance = random.Random(_SEED)
    rows = []
    for name, questions in sets.items():
        cases = list(questions.cases)
        cases = chance.sample(cases, min(800, len(cases)))
        vectors = embedder.embed_passages([case.question for case in cases])
        for case, vector in zip(cases, vectors, strict=True):
            query = IndexQuery(case.question, vector, fusion=TUNED_FUSION)
            found = filled[name].index.candidates(case.scope, query, _LIMIT)
            rest = [c for c in found if not questions.shows(c.hit) & case.gold]
            other = chance.choice([n for n in sets if n != name])
            foreign = chance.choice(sorted({str(d[0]) for d in sets[other].documents}))
            scope = next(d[0] for d in sets[other].documents if str(d[0]) == foreign)
            strange = filled[other].index.candidates(scope, query, _LIMIT)
            lists: list[list[Candidate]] = [found, rest, strange]
            rows += [
                Row(name, kind, half_of(case.cluster), coverage_features(case.question, each))
                for kind, each in zip(KINDS, lists, strict=True)
                if each
            ]
    return rows


def trusted(row: Row) -> bool:
    """Whether the label can be believed; see the top."""
    return (row.set, row.kind) != ("policyqa", "gold_removed")


def fit(rows: list[Row]) -> CoverageModel:
    rows = [row for row in rows if trusted(row)]
    return fit_coverage(*matrix(rows), 400 * shares(rows))


def shares(rows: list[Row]) -> NDArray[np.float64]:
    """Weights with which sets count alike, and both labels within each; they add up to 1 each."""
    groups = Counter((row.set, row.label) for row in rows)
    return np.array([1 / groups[row.set, row.label] for row in rows])


def matrix(rows: list[Row]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array([r.features for r in rows]), np.array([r.label for r in rows])


def alone(model_rows: list[Row]) -> list[Row]:
    """The rows with every feature but the best cosine blotted out."""
    return [replace(r, features=(r.features[0], *[0.0] * (len(FEATURES) - 1))) for r in model_rows]


def predict(model: CoverageModel, rows: list[Row]) -> NDArray[np.float64]:
    x, _ = matrix(rows)
    logits = ((x - np.array(model.mean)) / np.array(model.scale)) @ np.array(model.weights)
    result: NDArray[np.float64] = 1 / (1 + np.exp(-(logits + model.intercept)))
    return result


def auc(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """The share of (covered, not covered) pairs in the right order, ties half."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    upto = np.searchsorted(ordered, positive, "right")
    return float((below + upto).sum() / 2 / (len(positive) * len(negative)))


def judge(model: CoverageModel, rows: list[Row], *, bins: bool = False) -> dict[str, Any]:
    """AUC by kind of negative; Brier score, calibration and bins with both labels alike."""
    sound = [row for row in rows if trusted(row)]
    p, weights = predict(model, sound), shares(sound)
    weights = weights / weights.sum()
    labels = np.array([row.label for row in sound])
    places = np.minimum((p * 10).astype(int), 9)
    table = [
        {
            "from": b / 10,
            "n": int(m.sum()),
            "share": float(weights[m].sum()),
            "said": float(np.average(p[m], weights=weights[m])),
            "was": float(np.average(labels[m], weights=weights[m])),
        }
        for b in range(10)
        if (m := places == b).any()
    ]
    result: dict[str, Any] = {
        "n": len(rows),
        "auc": auc(labels, p),
        "brier": float(np.average((p - labels) ** 2, weights=weights)),
        "calibration_error": sum(r["share"] * abs(r["said"] - r["was"]) for r in table),
    }
    for kind in KINDS[1:]:
        some = [row for row in rows if row.kind in ("covered", kind)]
        result[f"auc_{kind}"] = auc(np.array([r.label for r in some]), predict(model, some))
    if bins:
        result["reliability"] = table
    return result


def evaluate(rows: list[Row]) -> tuple[CoverageModel, dict[str, Any]]:
    train, test = [r for r in rows if r.half == 0], [r for r in rows if r.half == 1]
    model = fit(train)
    baseline = fit(alone(train))
    result: dict[str, Any] = {
        "held_out_half": judge(model, test, bins=True),
        "held_out_half_cosine_alone": judge(baseline, alone(test), bins=True),
        "sets": {},
        "never_seen_sets": {},
    }
    for name in dict.fromkeys(r.set for r in rows):
        own = [r for r in test if r.set == name]
        result["sets"][name] = {
            "model": judge(model, own),
            "cosine_alone": judge(baseline, alone(own)),
        }
        rest, unseen = [r for r in rows if r.set != name], [r for r in rows if r.set == name]
        result["never_seen_sets"][name] = {
            "model": judge(fit(rest), unseen),
            "cosine_alone": judge(fit(alone(rest)), alone(unseen)),
        }
    return model, result


def manifest(
    sets: dict[str, QuestionSet], rows: list[Row], result: dict[str, Any]
) -> dict[str, Any]:
    train = [row for row in rows if row.half == 0]
    digest = hashlib.sha256(json.dumps([r.features for r in train]).encode()).hexdigest()
    held = result["held_out_half"]
    return {
        "made_by": "python -m benchmarks.coverage --write",
        "seed": _SEED,
        "embedding": "all-minilm-l6-v2",
        "fusion": "scores, dense 0.85, lexical 0.15",
        "sets": {name: len(sets[name].cases) for name in sets},
        "licences": {
            "xquad_en": "CC BY-SA 4.0",
            "northwind": "MIT",
            "policyqa": "MIT",
            "covid_faq": "Apache-2.0",
        },
        "training_rows": {kind: sum(r.kind == kind for r in train) for kind in KINDS},
        "training_sha256": digest,
        "held_out": {k: round(held[k], 4) for k in ("n", "auc", "brier", "calibration_error")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--write", action="store_true", help="replace retrieval/coverage.json")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    embedder = Embedder(options.models / "all-minilm-l6-v2")
    sets = {name: load(name, options.data) for name in NAMES}
    with tempfile.TemporaryDirectory() as folder:
        filled = {n: fill(s, embedder, Path(folder) / n) for n, s in sets.items()}
        rows = collect(sets, filled, embedder)
        for each in filled.values():
            each.index.close()
    model, result = evaluate(rows)
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text, "utf-8")
    if options.write:
        stored = model.to_json() | {"manifest": manifest(sets, rows, result)}
        path = Path(retrieval.coverage.__file__).with_name("coverage.json")
        path.write_text(json.dumps(stored, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()

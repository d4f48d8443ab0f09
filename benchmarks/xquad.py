"""Reading benchmark on XQuAD (English): 3 retrieved passages, EM, F1, citation, abstention.

  python -m benchmarks.xquad prepare --data XQUAD_DIR --models MODELS_DIR --out WORK
  python -m benchmarks.xquad score --work WORK --base HF_DIR [--adapter DIR] --arm context|bare
  python -m benchmarks.xquad service --data XQUAD_DIR --adapter DIR [--every N] --out DIR

`prepare` retrieves with the product's own search and writes the prompts' passages, so that every
adapter is judged on the same prompts, and a sealed snapshot of the training articles. Questions
of an article lie on one side of the split. `score` runs on a CPU or a GPU through transformers;
`service` measures the test questions through the whole service: ingested passages, the product's
search, llama.cpp, `eval run`'s report, once as they are and once with the gold passage hidden.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

K = 3
CANDIDATES = 8


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def split_of(article: str) -> str:
    """Test for 40 % of the articles, dev for 8 %, train for the rest, by the title's hash."""
    place = int(hashlib.sha256(article.encode()).hexdigest(), 16) % 100
    return "test" if place < 40 else "dev" if place < 48 else "train"


def prepare(options: argparse.Namespace) -> None:
    from retrieval.chunking import ChunkingOptions
    from retrieval.edge import EdgeIndex
    from retrieval.embedding import Embedder
    from retrieval.ingestion import prepare_document
    from retrieval.parsing import parse_bytes
    from retrieval.search import HybridSearcher
    from retrieval.types import Scope, WorkspaceId

    passages = {p["passage_id"]: p for p in read(options.data / "passages.jsonl")}
    questions = read(options.data / "questions.shared.jsonl")
    embedder = Embedder(options.models / "all-minilm-l6-v2")
    scope = Scope(WorkspaceId("bench"), "xquad")
    with tempfile.TemporaryDirectory() as folder:
        index = EdgeIndex(folder, dimension=embedder.dimension, model_identity=embedder.identity)
        chunking = ChunkingOptions(max_tokens=500)
        for passage_id, passage in passages.items():
            parsed = parse_bytes(passage["text"].encode(), "passage.txt")
            made = prepare_document(
                parsed,
                embedder,
                scope,
                document_id=passage_id,
                version_id=passage_id,
                options=chunking,
            )
            index.upsert(made.points)
        index.flush()
        searcher = HybridSearcher(index, embedder)
        rows = []
        for question in questions:
            hits = searcher.search(scope, question["question"], CANDIDATES).hits
            ids = list(dict.fromkeys(hit.document_id for hit in hits))
            rows.append(question | {"ranked": ids})
        index.close()
    options.out.mkdir(parents=True, exist_ok=True)
    cases = [_case(row, passages) for row in rows]
    _write(options.out / "cases.jsonl", cases)
    _seal(cases, passages, options.out / "snapshot")
    gold_in = sum(case["gold"] in [p["id"] for p in case["passages"]] for case in cases)
    counts = {s: sum(case["split"] == s for case in cases) for s in ("train", "dev", "test")}
    report = {"questions": len(cases), "gold_in_top_3": gold_in / len(cases), "split": counts}
    print(json.dumps(report))


def _case(row: dict[str, Any], passages: dict[str, Any]) -> dict[str, Any]:
    def shown(ids: list[str]) -> list[dict[str, str]]:
        # Best first, second best last: as the service packs them.
        ordered = [*ids[0::2], *reversed(ids[1::2])]
        return [
            {"id": i, "title": passages[i]["title"].replace("_", " "), "text": passages[i]["text"]}
            for i in ordered
        ]

    gold = row["gold_passage"]
    article = passages[gold]["title"]
    return {
        "id": row["id"],
        "question": row["question"],
        "answers": row["answers"],
        "gold": gold,
        "article": article,
        "split": split_of(article),
        "passages": shown(row["ranked"][:K]),
        "without_gold": shown([i for i in row["ranked"] if i != gold][:K]),
        "near": [i for i in row["ranked"] if i != gold],
    }


def _seal(cases: list[dict[str, Any]], passages: dict[str, Any], out: Path) -> None:
    import shutil

    from tuning.snapshot import seal

    def passage(i: str) -> dict[str, str]:
        return {
            "id": i,
            "title": passages[i]["title"].replace("_", " "),
            "text": passages[i]["text"],
        }

    rows = [
        {
            "id": case["id"],
            "question": case["question"],
            "answer": case["answers"][0],
            "kind": "grounded",
            "gold": [passage(case["gold"])],
            "distractors": [passage(i) for i in case["near"]],
            "component": case["article"],
            "split": case["split"],
            "provenance": {"source": "xquad", "licence": "CC BY-SA 4.0"},
        }
        for case in cases
        if case["split"] != "test"
    ]
    shutil.rmtree(out, ignore_errors=True)
    seal(rows, out)  # type: ignore[arg-type]


def score(options: argparse.Namespace) -> None:
    result, lines = scored(options)
    print(json.dumps(result), flush=True)
    if options.out:
        _write(options.out, lines)


def scored(options: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Scores of one adapter on a split (several joined by commas), and what it answered."""
    import torch

    from tuning.base_model import load_model, load_tokenizer
    from tuning.lora import load_adapted
    from tuning.prompt import Passage, encode, render_messages
    from tuning.scoring import GenerationSettings, abstains, generate_answers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = options.split.split(",")
    for name in wanted:
        if name not in ("all", "train", "dev", "test"):
            raise SystemExit(f"split {name!r} is unknown: choose all, train, dev, test")
    cases = [
        c for c in read(options.work / "cases.jsonl") if "all" in wanted or c["split"] in wanted
    ][: options.limit]
    tokenizer = load_tokenizer(options.base)
    model = load_model(options.base, device=device)
    if options.adapter:
        model = load_adapted(model, options.adapter)
    settings = GenerationSettings(batch=options.batch, new_tokens=48, autocast=device == "cuda")

    def ask(field: str | None) -> list[str]:
        prompts = []
        for case in cases:
            found = [Passage(p["title"], p["text"]) for p in case[field]] if field else []
            prompts.append(encode(tokenizer, render_messages(case["question"], found)))
        return generate_answers(model, tokenizer, prompts, settings)

    started = time.perf_counter()
    with_context = options.arm == "context"
    answers = ask("passages" if with_context else None)
    result = measured(cases, answers, with_context)
    if with_context:
        gone = ask("without_gold")
        result["abstains_without_gold"] = round(sum(map(abstains, gone)) / len(gone), 4)
    result |= {"label": options.label, "split": options.split, "n": len(cases)}
    result["seconds"] = round(time.perf_counter() - started, 1)
    return result, [{"id": c["id"], "text": a} for c, a in zip(cases, answers, strict=True)]


def measured(cases: list[dict[str, Any]], answers: list[str], with_context: bool) -> dict[str, Any]:
    from tuning.scoring import _CITATION, _normalised, abstains, token_f1

    f1, em, cited, refused = [], [], [], []
    for case, text in zip(cases, answers, strict=True):
        plain = _CITATION.sub("", text).strip()
        f1.append(max(token_f1(plain, a) for a in case["answers"]))
        em.append(max(_normalised(plain) == _normalised(a) for a in case["answers"]))
        numbers = {int(n) for n in _CITATION.findall(text)}
        ids = [p["id"] for p in case["passages"]]
        named = {ids[n - 1] for n in numbers if 0 < n <= len(ids)}
        cited.append(named == {case["gold"]} and len(named) == len(numbers))
        refused.append(abstains(text))
    n = len(cases)
    result = {"em": sum(em) / n, "f1": sum(f1) / n}
    if with_context:
        result |= {"right_citation": sum(cited) / n, "over_refusal": sum(refused) / n}
    return {key: round(value, 4) for key, value in result.items()}


def service(options: argparse.Namespace) -> None:
    from app.cli.client import Api
    from app.config import Settings

    passages = {p["passage_id"]: p for p in read(options.data / "passages.jsonl")}
    questions = [
        q
        for q in read(options.data / "questions.shared.jsonl")
        if split_of(passages[q["gold_passage"]]["title"]) == "test"
    ][:: options.every]
    with tempfile.TemporaryDirectory() as folder:
        home, documents = Path(folder) / "home", Path(folder) / "documents"
        home.mkdir()
        documents.mkdir()
        (home / "models").symlink_to(Settings().models_dir.resolve())
        for passage in passages.values():
            text = f"# {passage['title'].replace('_', ' ')}\n\n{passage['text']}\n"
            (documents / f"{passage['passage_id']}.md").write_text(text, "utf-8")
        samples = Path(folder) / "samples.jsonl"
        _write(samples, [_sample(q) for q in questions])
        settings = Settings(home=home, chunk_tokens=500, context_budget_tokens=1500, passages=K)
        with Api(settings) as api:
            _through_service(api, options, documents, samples)


def _sample(question: dict[str, Any]) -> dict[str, Any]:
    gold = question["gold_passage"]
    return {
        "id": question["id"],
        "question": question["question"],
        "answers": question["answers"],
        "gold": [f"{gold}.md"],
        "cluster": gold,
    }


def _through_service(api: Any, options: argparse.Namespace, documents: Path, samples: Path) -> None:
    import shutil

    def show(job: dict[str, Any]) -> None:
        progress = job.get("progress") or {}
        print(f"\r{json.dumps(progress)[:150]:150}", end="", file=sys.stderr, flush=True)

    api.call("POST", "/api/v1/knowledge-bases", json={"name": "xquad"})
    api.call("POST", "/api/v1/use-cases", json={"name": "xquad", "knowledge_bases": ["xquad"]})
    body: dict[str, Any] = {"paths": [str(documents)], "sync": True}
    job = api.call("POST", "/api/v1/knowledge-bases/xquad/ingest", json=body)
    print(json.dumps(api.wait(job, show)["result"]["counts"]), flush=True)
    body = {"use_case": "xquad", "path": str(options.adapter.resolve()), "name": "xquad-house"}
    adapter = api.call("POST", "/api/v1/adapters", json=body)
    for label, arms, hidden in (
        ("as-it-is", ["prompt", "rag", "tuned", "hybrid", "reader"], False),
        ("gold-removed", ["rag", "hybrid", "reader"], True),
    ):
        body = {
            "use_case": "xquad",
            "samples": str(samples),
            "arms": arms,
            "adapter": adapter["id"],
            "remove_gold": hidden,
        }
        done = api.wait(api.call("POST", "/api/v1/evaluations", json=body), show)["result"]
        target = options.out / label
        target.mkdir(parents=True, exist_ok=True)
        for name in ("report.html", "report.md", "result.json", "outputs.jsonl"):
            shutil.copyfile(Path(done["path"]) / name, target / name)
        print((target / "report.md").read_text("utf-8"), flush=True)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("prepare")
    first.add_argument("--data", type=Path, required=True)
    first.add_argument("--models", type=Path, required=True)
    first.add_argument("--out", type=Path, required=True)
    first.set_defaults(run=prepare)
    second = commands.add_parser("score")
    second.add_argument("--work", type=Path, required=True)
    second.add_argument("--base", required=True)
    second.add_argument("--adapter")
    second.add_argument("--arm", choices=("context", "bare"), default="context")
    second.add_argument("--split", default="all", help="all, train, dev, test or several by comma")
    second.add_argument("--label", default="")
    second.add_argument("--limit", type=int, default=None)
    second.add_argument("--batch", type=int, default=64)
    second.add_argument("--out", type=Path)
    second.set_defaults(run=score)
    third = commands.add_parser("service")
    third.add_argument("--data", type=Path, required=True)
    third.add_argument("--adapter", type=Path, required=True)
    third.add_argument("--every", type=int, default=1, help="ask every n-th test question")
    third.add_argument("--out", type=Path, required=True)
    third.set_defaults(run=service)
    options = parser.parse_args()
    options.run(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The evaluate job: every arm answers every sample, interleaved and resumable."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from app.answers.service import AnswerService, describe_versions
from app.answers.types import AnswerRequest, AnswerResult
from app.db.session import Database
from app.db.tables import Evaluation, UseCase
from app.engines.types import EngineError
from app.errors import BadInput
from app.evaluations import looks, reports
from app.evaluations.known import known_of
from app.evaluations.reports import BASELINES, BEST_SENTENCE, BM25, CONSTANT
from app.jobs.runner import JobContext
from evals.baselines import best_sentence_arm, bm25_template_arm, constant_answer
from evals.hiding import is_hidden
from evals.outputs import Output, Passage
from evals.runner import RunOptions, RunProgress, run_arms
from evals.samples import Sample, load_samples
from retrieval.types import WorkspaceId
from tuning.prompt import Message


class EvaluationJob:
    """Handler of `evaluate` jobs. Payload: evaluation_id, arms, style, primary, repeats."""

    def __init__(self, database: Database, root: Path, answers: AnswerService) -> None:
        self._database = database
        self._root = root
        self._answers = answers

    def run(self, job: JobContext) -> dict[str, Any]:
        """Answer, score, write the report; an interrupted run goes on where it stopped."""
        with self._database.session() as session:
            evaluation = session.get_one(Evaluation, job.payload["evaluation_id"])
            use_case = session.get_one(UseCase, evaluation.use_case_id)
        folder = Path(evaluation.path)
        samples = load_samples(folder / "samples.jsonl")
        started = time.perf_counter()
        primary = job.payload.get("primary", "token_f1")
        for repeat in range(int(job.payload.get("repeats", 1))):
            arms: dict[str, Callable[[Sample], Output]] = {
                spec["name"]: self._arm(spec, use_case, job, repeat) for spec in job.payload["arms"]
            }
            if repeat == 0 and job.payload.get("baselines", True):
                arms |= self._baselines(samples, use_case)
            run_arms(
                samples,
                arms,
                store=folder / "outputs.jsonl",
                progress=lambda p: job.progress(p.done, p.total, _shown(p)),
                expected_errors=(EngineError, BadInput),
                options=RunOptions(primary=primary, repeat=repeat),
            )
        seconds = time.perf_counter() - started
        job.progress(len(samples) * len(arms), len(samples) * len(arms), "writing the report")
        with self._database.session() as session:
            look = looks.take(session, evaluation, job.payload)
            at, known = looks.context_of(look), known_of(session, evaluation, use_case, look)
        summary, decision = reports.write(
            folder, job.payload, use_case.name, seconds, known=known, look=at
        )
        with self._database.session() as session:
            looks.note_dropped(session, session.merge(look), decision, job.payload["arms"])
            session.execute(
                sa.update(Evaluation).where(Evaluation.id == evaluation.id).values(summary=summary)
            )
        return {"evaluation": evaluation.id, "path": str(folder), "seconds": round(seconds, 1)}

    def _arm(
        self, spec: dict[str, Any], use_case: UseCase, job: JobContext, repeat: int
    ) -> Callable[[Sample], Output]:
        def solve(sample: Sample) -> Output:
            result = self._answers.answer(
                AnswerRequest(
                    workspace_id=WorkspaceId(use_case.workspace_id),
                    use_case=use_case.name,
                    question=sample.question,
                    history=tuple(
                        Message(role=turn.role, content=turn.content)  # type: ignore[typeddict-item]
                        for turn in sample.history
                    ),
                    arm=spec["arm"],
                    adapter=spec.get("adapter"),
                    asked_by="evaluation",
                    record=False,
                    without_documents=sample.gold if is_hidden(sample) else (),
                    temperature=float(job.payload.get("temperature", 0.0)),
                    seed=repeat,
                ),
                fall_back=False,
            )
            return self._output(sample, spec["name"], result)

        return solve

    def _output(self, sample: Sample, arm: str, result: AnswerResult) -> Output:
        names = describe_versions(self._database, list({p.hit.version_id for p in result.passages}))
        by_score = sorted(result.passages, key=lambda p: -p.hit.score)
        return Output(
            sample_id=sample.id,
            arm=arm,
            text=result.text,
            citations=tuple(dict.fromkeys(c.document for c in result.citations)),
            retrieved=tuple(dict.fromkeys(names[p.hit.version_id].document for p in by_score)),
            abstained=result.abstained,
            latency_s=result.timings["total_s"],
            prompt_tokens=result.prompt_tokens,
            completion_tokens=result.completion_tokens,
            meta={
                "passages": [
                    {"id": names[p.hit.version_id].document, "text": p.text}
                    for p in result.passages
                ],
                "identity": result.identity_sha256,
                "grounded": result.grounded,
                "coverage": result.coverage,
                "first_token_s": result.timings.get("first_token_s"),
            },
        )

    def _baselines(
        self, samples: tuple[Sample, ...], use_case: UseCase
    ) -> dict[str, Callable[[Sample], Output]]:
        asked: dict[str, list[Passage]] = {}

        def retrieve(sample: Sample) -> list[Passage]:
            if sample.id in asked:  # the second baseline asks right after the first
                return asked.pop(sample.id)
            found = self._answers.retrieve(
                AnswerRequest(
                    workspace_id=WorkspaceId(use_case.workspace_id),
                    use_case=use_case.name,
                    question=sample.question,
                    arm="rag",
                    without_documents=sample.gold if is_hidden(sample) else (),
                )
            )
            names = describe_versions(self._database, [hit.version_id for hit in found])
            asked[sample.id] = [Passage(names[h.version_id].document, h.text) for h in found]
            return asked[sample.id]

        baselines = {CONSTANT: constant_answer(samples, arm=CONSTANT)}
        if use_case.knowledge_base_ids:
            baselines[BEST_SENTENCE] = best_sentence_arm(retrieve, arm=BEST_SENTENCE)
            baselines[BM25] = bm25_template_arm(retrieve, arm=BM25)
        return baselines


def _shown(progress: RunProgress) -> str:
    parts = [
        f"{arm.arm} {arm.mean:.2f}"
        + ("" if arm.low is None or arm.high is None else f" ({arm.low:.2f}–{arm.high:.2f})")
        for arm in progress.arms
        if arm.mean is not None and arm.arm not in BASELINES
    ]
    if progress.eta_s is not None:
        parts.append(f"ETA {progress.eta_s:.0f} s")
    return ", ".join(parts)


def arms_from(names: list[str], adapter: str | None) -> list[dict[str, Any]]:
    """Arm specifications from `prompt,rag,tuned,hybrid,reader`.

    `reader` is the hybrid arm with the shipped reader: beside `hybrid` it shows what the house
    stage adds.
    """
    specs: list[dict[str, Any]] = []
    for name in names:
        if name == "reader":
            specs.append({"name": "reader", "arm": "hybrid", "adapter": "reader"})
        elif name in ("prompt", "rag", "tuned", "hybrid"):
            tuned = adapter if name in ("tuned", "hybrid") else None
            specs.append({"name": name, "arm": name, "adapter": tuned})
        else:
            raise BadInput(f"arm {name!r} is unknown: choose prompt, rag, tuned, hybrid, reader")
    return specs

"""The judge job: a model calls every answer good or bad, and people's labels correct it.

What the judge said lies beside the outputs (`verdicts.jsonl`, one line an answer as it comes), so
that an interrupted job goes on; `judge.json` holds verdicts and labels for the report.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from app.db.session import Database
from app.db.tables import Evaluation, UseCase
from app.engines.types import Engine, Generation, GenerationRequest
from app.errors import BadInput
from app.evaluations import looks, reports
from app.evaluations.known import JUDGED, judged_of, known_of
from app.jobs.runner import JobContext
from evals.canonical import jsonable
from evals.judging import MIN_LABELS, judge_card, run_judge
from evals.outputs import Output
from evals.runner import read_outputs
from evals.samples import Sample, clusters, load_samples
from tuning.prompt import Message, encode

Labels = dict[tuple[str, str], bool]
_SYSTEM = "You check answers. Reply with one word: yes if the answer is right, no if it is not."
_ANSWER_TOKENS = 4


def parse_labels(rows: Sequence[Mapping[str, Any]]) -> Labels:
    """People's labels, `{"arm", "id", "good"}` each; rows without a verdict are left out.

    Raises:
        BadInput: naming the row and what is wrong with it.
    """
    found: Labels = {}
    for number, row in enumerate(rows, start=1):
        arm, name, good = row.get("arm"), row.get("id"), row.get("good")
        if good is None:
            continue
        if not isinstance(arm, str) or not isinstance(name, str) or not isinstance(good, bool):
            raise BadInput(f"label {number} must be {{arm, id, good: true or false}}: {dict(row)}")
        found[arm, name] = good
    return found


def to_label(folder: Path, number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Answers for people to label, the same number of each arm, `good` still open.

    The judge's opinion is not among them: it would lead the hand.
    """
    samples = {sample.id: sample for sample in load_samples(folder / "samples.jsonl")}
    by_arm: dict[str, list[Output]] = {}
    for output in read_outputs(folder / "outputs.jsonl"):
        if output.arm not in reports.BASELINES and output.repeat == 0 and output.error is None:
            by_arm.setdefault(output.arm, []).append(output)
    rng = random.Random(seed)
    drawn = [
        output
        for outputs in by_arm.values()
        for output in rng.sample(outputs, min(len(outputs), max(1, number // len(by_arm))))
    ]
    rng.shuffle(drawn)
    return [
        {
            "arm": output.arm,
            "id": output.sample_id,
            "question": samples[output.sample_id].question,
            "expected": samples[output.sample_id].answers,
            "text": output.text,
            "good": None,
        }
        for output in drawn
    ]


def check_labels(folder: Path, labels: Labels, verdicts: Labels | None = None) -> None:
    """Refuse labels of answers there are not, and a judge that no label calibrates.

    Args:
        folder: of the evaluation.
        labels: people's.
        verdicts: another judge's; None where the service's model judges every answer.

    Raises:
        BadInput: naming the label, or how many are needed.
    """
    known = {(o.arm, o.sample_id) for o in _judged(folder)}
    for said, found in (("label", labels), ("judge", verdicts or {})):
        strange = sorted(set(found) - known)
        if strange:
            raise BadInput(
                f"no answer of arm {strange[0][0]!r} to sample {strange[0][1]!r} to {said}"
            )
    unjudged = sorted(set(labels) - set(labels if verdicts is None else verdicts))
    if unjudged:
        raise BadInput(f"the label of {unjudged[0]} is for an answer without a verdict")
    if not labels:
        raise BadInput(
            f"a judge without people's labels is not shown: label {MIN_LABELS} answers of each "
            "arm, from `tandem eval judge EVALUATION --to-label 100 --out FILE`"
        )


class JudgeJob:
    """Handler of `judge` jobs. Payload: evaluation_id, labels, verdicts (optional)."""

    def __init__(
        self, database: Database, engine: Callable[[], Engine], tokenizer: Callable[[], Any]
    ) -> None:
        self._database = database
        self._engine = engine
        self._tokenizer = tokenizer

    def run(self, job: JobContext) -> dict[str, Any]:
        """Ask the judge where no verdicts were given, calibrate it, write the report again."""
        with self._database.session() as session:
            evaluation = session.get_one(Evaluation, job.payload["evaluation_id"])
            use_case = session.get_one(UseCase, evaluation.use_case_id)
        folder = Path(evaluation.path)
        samples = load_samples(folder / "samples.jsonl")
        labels = parse_labels(job.payload["labels"])
        given = job.payload.get("verdicts")
        verdicts = parse_labels(given) if given else self._ask(folder, samples, job)
        kept = {
            name: [{"arm": a, "id": i, "good": good} for (a, i), good in sorted(found.items())]
            for name, found in (("verdicts", verdicts), ("labels", labels))
        }
        groups = dict(zip((s.id for s in samples), clusters(samples), strict=True))
        card = judge_card(verdicts, labels, clusters=groups)
        (folder / JUDGED).write_text(json.dumps(kept), "utf-8")
        self._write_again(evaluation, use_case)
        return {
            "evaluation": evaluation.id,
            "path": str(folder),
            "judge": "given" if given else self._engine().identity,
            "arms": jsonable(card),
            "labels_needed": MIN_LABELS,
        }

    def _ask(
        self, folder: Path, samples: Sequence[Sample], job: JobContext
    ) -> dict[tuple[str, str], bool]:
        kept, judge_name = folder / "verdicts.jsonl", self._engine().identity
        lines = _lines(kept) if kept.is_file() else []
        # Another model is another judge: what it said is asked again.
        known = parse_labels([row for row in lines if row.get("judge") == judge_name])
        outputs = _judged(folder)
        done = 0
        with kept.open("a", encoding="utf-8") as file:
            file.write("\n")  # what follows must not join half a line of a killed job

            def judge(sample: Sample, output: Output) -> bool:
                nonlocal done
                done += 1
                job.progress(done, len(outputs), "judging")
                key = (output.arm, output.sample_id)
                if key not in known:
                    known[key] = self._says_yes(sample, output)
                    row = {"arm": key[0], "id": key[1], "good": known[key], "judge": judge_name}
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                return known[key]

            return run_judge(judge, samples, outputs)

    def _says_yes(self, sample: Sample, output: Output) -> bool:
        messages = judge_messages(sample, output)
        request = GenerationRequest(
            prompt_ids=encode(self._tokenizer(), messages),
            max_tokens=_ANSWER_TOKENS,
            messages=tuple(dict(message) for message in messages),  # type: ignore[arg-type]
        )
        text = next(
            piece.text for piece in self._engine().stream(request) if isinstance(piece, Generation)
        )
        return text.strip().lower().startswith("yes")

    def _write_again(self, evaluation: Evaluation, use_case: UseCase) -> None:
        payload = dict(evaluation.manifest)
        with self._database.session() as session:
            look = looks.take(session, evaluation, payload)
            at, known = looks.context_of(look), known_of(session, evaluation, use_case, look)
        seconds = float(evaluation.summary["manifest"]["seconds"])
        summary, _ = reports.write(
            Path(evaluation.path), payload, use_case.name, seconds, known=known, look=at
        )
        with self._database.session() as session:
            session.execute(
                sa.update(Evaluation).where(Evaluation.id == evaluation.id).values(summary=summary)
            )


def _judged(folder: Path) -> list[Output]:
    """The answers a judge sees: the first of every arm to every sample."""
    return [
        output
        for output in read_outputs(folder / "outputs.jsonl")
        if output.arm not in reports.BASELINES and output.repeat == 0
    ]


def judge_messages(sample: Sample, output: Output) -> list[Message]:
    """What the judge is asked: the question, what counts as right, and the answer."""
    right = (
        "nothing: the right reaction is to say that it is not known"
        if sample.answers is None
        else " or ".join(sample.answers[:5])
    )
    said = "(it said that it does not know)" if output.abstained else output.text
    asked = f"Question: {sample.question}\nRight: {right}\nAnswer: {said}\nIs the answer right?"
    return [Message(role="system", content=_SYSTEM), Message(role="user", content=asked)]


def card_of(evaluation: Evaluation) -> dict[str, Any]:
    """The judge's card of an evaluation that was judged.

    Raises:
        BadInput: If it was not.
    """
    folder = Path(evaluation.path)
    verdicts, labels = judged_of(folder)
    if not verdicts:
        raise BadInput(f"evaluation {evaluation.id!r} was not judged: `tandem eval judge`")
    samples = load_samples(folder / "samples.jsonl")
    groups = dict(zip((s.id for s in samples), clusters(samples), strict=True))
    return {
        "evaluation": evaluation.id,
        "arms": jsonable(judge_card(verdicts, labels, clusters=groups)),
        "labels_needed": MIN_LABELS,
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a file that a killed job may have left with half a last one."""
    rows = []
    for line in path.read_text("utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows

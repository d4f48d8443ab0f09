"""Evaluation samples: what is asked, what counts as right, and which samples depend on another."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from evals.canonical import digest
from evals.errors import SampleError

_FIELDS = ("id", "question", "answers", "gold", "cluster", "history", "tags")


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier message of the conversation the question belongs to."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One question.

    Attributes:
        answers: accepted short answers; None means that the knowledge base does not hold one and
            the right reaction is to abstain.
        gold: ids of the documents or passages that support the answer.
        cluster: samples with an equal cluster are not independent of each other.
    """

    id: str
    question: str
    answers: tuple[str, ...] | None = None
    gold: tuple[str, ...] = ()
    cluster: str | None = None
    history: tuple[Turn, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def answerable(self) -> bool:
        """Whether the knowledge base holds an answer."""
        return self.answers is not None


def load_samples(path: str | Path) -> tuple[Sample, ...]:
    """Read samples from a JSONL file; blank lines are skipped.

    Raises:
        SampleError: naming the line and the field, when a line is not a valid sample, when two
            samples have the same id, or when the file holds no sample.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SampleError(f"cannot read samples from {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SampleError(f"{path} is not UTF-8 text (byte {error.start})") from error
    samples: list[Sample] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            sample = parse_sample(json.loads(line))
        except json.JSONDecodeError as error:
            raise SampleError(f"line {number}: not valid JSON ({error.msg})") from error
        except SampleError as error:
            raise SampleError(f"line {number}: {error}") from error
        if sample.id in seen:
            raise SampleError(
                f"line {number}: field 'id' repeats {sample.id!r} of line {seen[sample.id]}"
            )
        seen[sample.id] = number
        samples.append(sample)
    if not samples:
        raise SampleError(f"{path} holds no samples")
    return tuple(samples)


def parse_sample(record: Any) -> Sample:
    """Build a sample from one decoded JSON object; fields with other names are left out.

    Raises:
        SampleError: naming the field.
    """
    if not isinstance(record, Mapping):
        raise SampleError(f"expected a JSON object, got {type(record).__name__}")
    for name in sorted(set(record) - set(_FIELDS)):
        # Other fields may travel along, but a misspelt one must not be dropped in silence.
        meant = get_close_matches(str(name), _FIELDS, n=1, cutoff=0.8)
        if meant and meant[0] not in record:
            raise SampleError(f"unknown field {name!r}; did you mean {meant[0]!r}?")
    if "answers" not in record:
        raise SampleError("field 'answers' is missing; use null for an unanswerable question")
    answers = None if record["answers"] is None else _strings(record, "answers")
    if answers == ():
        raise SampleError("field 'answers' is empty; use null for an unanswerable question")
    cluster = record.get("cluster")
    if cluster is not None and not isinstance(cluster, str):
        raise SampleError(f"field 'cluster' must be a string, got {cluster!r}")
    return Sample(
        id=_text(record, "id"),
        question=_text(record, "question"),
        answers=answers,
        gold=_strings(record, "gold"),
        cluster=cluster,
        history=_turns(record.get("history")),
        tags=_strings(record, "tags"),
    )


def sample_record(sample: Sample) -> dict[str, Any]:
    """Give the JSON object of a sample, as `parse_sample` reads it."""
    return {
        "id": sample.id,
        "question": sample.question,
        "answers": None if sample.answers is None else list(sample.answers),
        "gold": list(sample.gold),
        "cluster": sample.cluster,
        "history": [{"role": turn.role, "content": turn.content} for turn in sample.history],
        "tags": list(sample.tags),
    }


def clusters(samples: Sequence[Sample]) -> tuple[int, ...]:
    """Number the independent group of every sample, in order of first appearance.

    Samples that share a gold id or an explicit cluster are connected; a cluster is a connected
    component. A sample that shares nothing is a cluster of its own.
    """
    parent = list(range(len(samples)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, sample in enumerate(samples):
        keys = [("gold", gold) for gold in sample.gold]
        if sample.cluster is not None:
            keys.append(("cluster", sample.cluster))
        for key in keys:
            parent[root(i)] = root(first.setdefault(key, i))
    numbers: dict[int, int] = {}
    return tuple(numbers.setdefault(root(i), len(numbers)) for i in range(len(samples)))


def samples_digest(samples: Sequence[Sample]) -> str:
    """Sha256 (hex) of the content of the samples, whatever their order."""
    return digest([sample_record(sample) for sample in sorted(samples, key=lambda s: s.id)])


def _text(record: Mapping[str, Any], field: str) -> str:
    value = record.get(field)
    if not isinstance(value, str) or not value.strip():
        raise SampleError(f"field {field!r} must be a non-empty string, got {value!r}")
    return value


def _strings(record: Mapping[str, Any], field: str) -> tuple[str, ...]:
    value = record.get(field)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        raise SampleError(f"field {field!r} must be a list of non-empty strings, got {value!r}")
    return tuple(value)


def _turns(value: Any) -> tuple[Turn, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise SampleError(f"field 'history' must be a list of turns, got {value!r}")
    turns = []
    for turn in value:
        role = turn.get("role") if isinstance(turn, Mapping) else None
        content = turn.get("content") if isinstance(turn, Mapping) else None
        if not isinstance(role, str) or not isinstance(content, str):
            raise SampleError(
                f"field 'history' needs turns with 'role' and 'content', got {turn!r}"
            )
        turns.append(Turn(role, content))
    return tuple(turns)

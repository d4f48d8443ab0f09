"""FAQ tables: a question and its answer per row, as CSV, TSV or JSON lines."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evals.errors import SampleError
from evals.samples import Sample

_QUESTION = ("question", "prompt", "query", "q")
_ANSWER = ("answer", "response", "reply", "a")
_SOURCE = ("gold", "source", "document", "url", "link")
_TAG = ("tag", "tags", "category", "topic", "section")


def load_faq(path: str | Path) -> tuple[Sample, ...]:
    """Read question-answer rows; column names are found whatever their case.

    Needed are a question (question, prompt, query) and an answer (answer, response, reply); a
    source (source, document, url) becomes gold, a category a tag. An empty answer means that the
    question has none.

    Raises:
        SampleError: naming the columns found or the row.
    """
    file = Path(path)
    samples = []
    for number, row in enumerate(_rows(file), start=1):
        question = _pick(row, _QUESTION)
        if not question:
            raise SampleError(f"{file.name}: row {number} has no question; it has {_names(row)}")
        if not any(name in row for name in _ANSWER):
            raise SampleError(
                f"{file.name}: row {number} has no answer column; it has {_names(row)}, "
                f"valid are {', '.join(_ANSWER)}"
            )
        answer, source, tag = _pick(row, _ANSWER), _pick(row, _SOURCE), _pick(row, _TAG)
        samples.append(
            Sample(
                id=_pick(row, ("id",)) or f"faq-{number}",
                question=question,
                answers=(answer,) if answer else None,
                gold=(source,) if source and answer else (),
                tags=(tag,) if tag else (),
            )
        )
    if not samples:
        raise SampleError(f"{file.name} holds no rows")
    repeated = len(samples) - len({sample.id for sample in samples})
    if repeated:
        raise SampleError(f"{file.name}: {repeated} rows repeat the id of another")
    return tuple(samples)


def _rows(file: Path) -> Iterator[dict[str, str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SampleError(f"cannot read samples from {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SampleError(f"{file.name} is not UTF-8 text (byte {error.start})") from error
    if file.suffix.lower() in (".jsonl", ".json"):
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield _lower(_object(line, file, number))
        return
    delimiter = "\t" if file.suffix.lower() == ".tsv" else _delimiter(text)
    for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter):
        yield _lower(row)


def _object(line: str, file: Path, number: int) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise SampleError(f"{file.name}: line {number} is not JSON") from error
    if not isinstance(record, Mapping):
        raise SampleError(f"{file.name}: line {number} is not a JSON object")
    return record


def _delimiter(text: str) -> str:
    head = text.split("\n", 1)[0]
    return max(",;\t", key=head.count)


def _lower(row: Mapping[Any, Any]) -> dict[str, str]:
    return {
        str(name).strip().lower(): "" if value is None else str(value).strip()
        for name, value in row.items()
    }


def _pick(row: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((row[name] for name in names if row.get(name)), "")


def _names(row: Mapping[str, str]) -> str:
    return ", ".join(row) or "no columns"

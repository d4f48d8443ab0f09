"""SQuAD v1 and v2 files: articles, their paragraphs, questions about each."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evals.errors import SampleError
from evals.samples import Sample


def load_squad(path: str | Path) -> tuple[Sample, ...]:
    """Read a SQuAD v1 or v2 file; a paragraph's id is `TITLE#NUMBER`, its article the cluster.

    Impossible questions have no answer and no gold. Source of the format: Rajpurkar et al. 2016,
    2018.

    Raises:
        SampleError: naming the article and what is wrong with it.
    """
    return tuple(_read(Path(path)))


def squad_passages(path: str | Path) -> dict[str, str]:
    """Give the paragraphs of a SQuAD file by the ids that its samples name as gold.

    Raises:
        SampleError: naming the article and what is wrong with it.
    """
    file = Path(path)
    return {
        _paragraph_id(article, number): str(paragraph["context"])
        for article in _articles(file)
        for number, paragraph in enumerate(_list(article, "paragraphs", file))
    }


def _read(file: Path) -> Iterator[Sample]:
    seen: set[str] = set()
    for article in _articles(file):
        for number, paragraph in enumerate(_list(article, "paragraphs", file)):
            where = _paragraph_id(article, number)
            for item in _list(paragraph, "qas", file):
                sample = _sample(item, where, str(article.get("title", "")))
                if sample.id in seen:
                    raise SampleError(f"{file.name}: question id {sample.id!r} occurs twice")
                seen.add(sample.id)
                yield sample
    if not seen:
        raise SampleError(f"{file.name} holds no questions")


def _sample(item: Any, where: str, title: str) -> Sample:
    if not isinstance(item, Mapping) or not str(item.get("question", "")).strip():
        raise SampleError(f"paragraph {where}: a question has no text")
    answers = tuple(
        dict.fromkeys(
            str(answer["text"])
            for answer in item.get("answers") or ()
            if isinstance(answer, Mapping) and str(answer.get("text", "")).strip()
        )
    )
    impossible = bool(item.get("is_impossible")) or not answers
    return Sample(
        id=str(item.get("id") or f"{where}/{item['question']}"),
        question=str(item["question"]).strip(),
        answers=None if impossible else answers,
        gold=() if impossible else (where,),
        cluster=title or None,
        tags=("impossible",) if impossible else (),
    )


def _articles(file: Path) -> list[Mapping[str, Any]]:
    try:
        record = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SampleError(f"cannot read samples from {file}: {error.strerror}") from error
    except ValueError as error:
        raise SampleError(f"{file.name} is not JSON: {error}") from error
    if not isinstance(record, Mapping) or not isinstance(record.get("data"), list):
        raise SampleError(f"{file.name} has no list 'data' of articles, as SQuAD files do")
    return [article for article in record["data"] if isinstance(article, Mapping)]


def _list(record: Mapping[str, Any], name: str, file: Path) -> list[Any]:
    value = record.get(name)
    if not isinstance(value, list):
        title = record.get("title", record.get("context", ""))
        raise SampleError(f"{file.name}: {str(title)[:60]!r} has no list {name!r}")
    return value


def _paragraph_id(article: Mapping[str, Any], number: int) -> str:
    return f"{article.get('title', 'article')}#{number}"

"""Examples written by a larger model, for people to approve: distillation from checked answers.

The larger model is any `generate` callable (an OpenAI-compatible engine, say). Its answer is kept
only where it abstains, or cites a shown passage and takes every number from what it cites. Kept
answers are candidates: their metadata says "distilled", and they train nothing until a person
approves them.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuning.atomic import write_text
from tuning.prompt import DEFAULT_SYSTEM, Message, Passage, render_messages
from tuning.scoring import abstains
from tuning.snapshot_rows import CITE

PROVENANCE = "distilled"
_CITATION = re.compile(r"\[(\d{1,3})\]")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")

Generate = Callable[[Sequence[Message]], str]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a passage was read: its document and the version of it, "" where nobody said."""

    document: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with the passages its answer may use, and where each was read."""

    question: str
    passages: tuple[Passage, ...] = ()
    origins: tuple[Origin, ...] = ()

    def __post_init__(self) -> None:
        if self.origins and len(self.origins) != len(self.passages):
            raise ValueError(f"{len(self.passages)} passages, {len(self.origins)} origins")


@dataclass(frozen=True, slots=True)
class Distilled:
    """What became of one question; `reason` is set where the answer was refused."""

    asked: Asked
    answer: str
    reason: str = ""


def distill(
    asked: Iterable[Asked], generate: Generate, *, system: str = DEFAULT_SYSTEM
) -> Iterator[Distilled]:
    """Ask the larger model and check each answer against its passages."""
    for one in asked:
        answer = generate(render_messages(one.question, one.passages, system=system)).strip()
        yield Distilled(one, answer, _refusal(one, answer))


def write_examples(
    path: Path | str, results: Iterable[Distilled], *, model: str, use_case: str = ""
) -> tuple[int, int]:
    """Write kept answers as an examples file and return how many were kept and refused.

    An example names the documents it cites as its sources, and the versions of all passages that
    its answer could have come from. Citations become `{cite}`, since training numbers passages
    anew.
    """
    lines, refused = [], 0
    for result in results:
        if result.reason:
            refused += 1
            continue
        metadata = {
            "provenance": PROVENANCE,
            "consent": PROVENANCE,
            "source": PROVENANCE,
            "author": f"model:{model}",
            "use_case": use_case,
            "approved": False,
            **_origin(result),
        }
        record = {
            "instruction": result.asked.question,
            "input": "",
            "output": _with_marker(result),
            "metadata": metadata,
        }
        lines.append(json.dumps(record, ensure_ascii=False))
    write_text(Path(path), "".join(f"{line}\n" for line in lines))
    return len(lines), refused


def _origin(result: Distilled) -> dict[str, object]:
    """What an example's metadata says of the passages it was written from."""
    asked = result.asked
    origins = asked.origins or (Origin(),) * len(asked.passages)
    cited = [n - 1 for n in _cited(result) if 1 <= n <= len(asked.passages)]
    documents = [origins[i].document for i in cited if origins[i].document]
    record: dict[str, object] = {
        "passages": [
            {"title": p.title, "text": p.text, "document": o.document, "version": o.version}
            for p, o in zip(asked.passages, origins, strict=True)
        ],
        "sources": list(dict.fromkeys(documents)),
        "document_versions": list(dict.fromkeys(o.version for o in origins if o.version)),
    }
    if documents:
        record["gold_text"] = "\n".join(asked.passages[i].text for i in cited)
    return record


def _with_marker(result: Distilled) -> str:
    if not _cited(result):
        return result.answer
    first = _CITATION.search(result.answer)
    end = first.end() if first else 0
    head = _CITATION.sub(CITE, result.answer[:end], count=1)
    return head + re.sub(rf"\s*{_CITATION.pattern}", "", result.answer[end:])


def _cited(result: Distilled) -> list[int]:
    """Numbers of the passages an answer cites, each once; none where it abstains."""
    if abstains(result.answer) or not result.asked.passages:
        return []
    return sorted({int(number) for number in _CITATION.findall(result.answer)})


def _refusal(asked: Asked, answer: str) -> str:
    if not answer:
        return "empty answer"
    if abstains(answer) or not asked.passages:
        return ""
    cited = {int(number) for number in _CITATION.findall(answer)}
    if not cited:
        return "no citation"
    unknown = sorted(n for n in cited if not 1 <= n <= len(asked.passages))
    if unknown:
        return f"cites passage {unknown[0]} of {len(asked.passages)}"
    source = " ".join(
        f"{asked.passages[n - 1].title} {asked.passages[n - 1].text}" for n in sorted(cited)
    )
    known = set(_NUMBER.findall(source)) | set(_NUMBER.findall(asked.question))
    stated = _NUMBER.findall(_CITATION.sub("", answer))
    invented = [number for number in stated if number not in known]
    return f"the number {invented[0]} is not in what it cites" if invented else ""

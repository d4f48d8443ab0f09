"""Answers that need no model: what every arm has to beat before its score means anything."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from math import log

from evals.metrics.answers import normalise_answer
from evals.outputs import Output, Passage
from evals.samples import Sample

CONSTANT = "constant"
BEST_SENTENCE = "best-sentence"
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def constant_answer(
    samples: Sequence[Sample], *, arm: str = CONSTANT
) -> Callable[[Sample], Output]:
    """Give a solver that always says the most frequent answer, or always abstains.

    The answer is chosen on the given samples themselves, so this is the most that an answer
    without reading can reach. Ties go to the answer seen first.
    """
    counts: Counter[str | None] = Counter()
    surface: dict[str | None, str] = {None: ""}
    for sample in samples:
        keys = {normalise_answer(a): a for a in reversed(sample.answers or ())}
        for key in dict.fromkeys([normalise_answer(a) for a in sample.answers or ()]):
            counts[key] += 1
            surface.setdefault(key, keys[key])
        if sample.answers is None:
            counts[None] += 1
    best = counts.most_common(1)[0][0] if counts else None
    text = surface[best]

    def solve(sample: Sample) -> Output:
        return Output(sample.id, arm, text, abstained=best is None)

    return solve


def best_sentence(question: str, passages: Sequence[str]) -> str:
    """Give the sentence that shares the most words with the question, rare words counting more.

    Ties go to the earlier sentence; no passages give an empty text.
    """
    return _best_sentence(question, passages)[0]


def best_sentence_arm(
    retrieve: Callable[[Sample], Sequence[Passage]], *, arm: str = BEST_SENTENCE
) -> Callable[[Sample], Output]:
    """Give a solver that copies the best sentence of the retrieved passages and cites its passage.

    It never abstains.
    """

    def solve(sample: Sample) -> Output:
        passages = retrieve(sample)
        text, where = _best_sentence(sample.question, [passage.text for passage in passages])
        return Output(
            sample.id,
            arm,
            text,
            citations=() if where is None else (passages[where].id,),
            retrieved=tuple(passage.id for passage in passages),
            meta={"passages": [{"id": p.id, "text": p.text} for p in passages]},
        )

    return solve


def _best_sentence(question: str, passages: Sequence[str]) -> tuple[str, int | None]:
    sentences = [
        (sentence.strip(), i)
        for i, passage in enumerate(passages)
        for sentence in _SENTENCE.split(passage)
        if sentence.strip()
    ]
    if not sentences:
        return "", None
    words = [set(normalise_answer(sentence).split()) for sentence, _ in sentences]
    frequency = Counter(word for sentence in words for word in sentence)
    asked = set(normalise_answer(question).split())

    def weight(found: set[str]) -> float:
        # sorted: a sum of floats depends on its order, and sets have none
        return sum(log(1 + len(words) / frequency[word]) for word in sorted(found & asked))

    best = max(range(len(sentences)), key=lambda i: weight(words[i]))
    return sentences[best]

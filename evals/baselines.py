"""Answers that need no model: what every arm has to beat before its score means anything."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import log

from evals.metrics.answers import normalise_answer
from evals.outputs import Output, Passage
from evals.samples import Sample

CONSTANT = "constant"
BEST_SENTENCE = "best-sentence"
BM25_TEMPLATE = "bm25-template"
TEMPLATE = "According to {source}: {sentence}"
_K1, _B = 1.2, 0.75  # Robertson and Zaragoza 2009
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


def bm25_template_arm(
    retrieve: Callable[[Sample], Sequence[Passage]],
    *,
    arm: str = BM25_TEMPLATE,
    template: str = TEMPLATE,
    refuse_below: float = 0.0,
) -> Callable[[Sample], Output]:
    """Give a solver that puts the best sentence by BM25 into a fixed wording and cites its passage.

    Args:
        retrieve: passages for a sample; statistics of words are taken over their sentences.
        arm: name of the arm.
        template: wording with `{source}` and `{sentence}`.
        refuse_below: share of the question's words, weighted by rarity, that must occur in the
            sentence; below it the solver abstains.
    """

    def solve(sample: Sample) -> Output:
        passages = retrieve(sample)
        sentence, where, share = _bm25(sample.question, tuple(p.text for p in passages))
        refused = where is None or share < refuse_below
        source = "" if where is None else passages[where].id
        return Output(
            sample.id,
            arm,
            "" if refused else template.format(source=source, sentence=sentence),
            citations=() if refused else (source,),
            retrieved=tuple(passage.id for passage in passages),
            abstained=refused,
            meta={"passages": [{"id": p.id, "text": p.text} for p in passages]},
        )

    return solve


def _bm25(question: str, passages: tuple[str, ...]) -> tuple[str, int | None, float]:
    """Best sentence, its passage, and the weighted share of the question's words in it."""
    rows = _sentences(passages)
    if not rows:
        return "", None, 0.0
    words = [Counter(normalise_answer(sentence).split()) for sentence, _ in rows]
    frequency = Counter(word for found in words for word in found)
    mean = sum(found.total() for found in words) / len(words) or 1.0
    asked = sorted(set(normalise_answer(question).split()))
    idf = {w: log(1 + (len(words) - frequency[w] + 0.5) / (frequency[w] + 0.5)) for w in asked}

    def score(found: Counter[str]) -> float:
        length = _K1 * (1 - _B + _B * found.total() / mean)
        return sum(idf[w] * found[w] * (_K1 + 1) / (found[w] + length) for w in asked)

    best = max(range(len(rows)), key=lambda i: score(words[i]))
    held = sum(idf[w] for w in asked if words[best][w])
    return *rows[best], held / (sum(idf.values()) or 1.0)


@lru_cache(maxsize=1024)
def _sentences(passages: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    return tuple(
        (sentence.strip(), i)
        for i, passage in enumerate(passages)
        for sentence in _SENTENCE.split(passage)
        if sentence.strip()
    )


def _best_sentence(question: str, passages: Sequence[str]) -> tuple[str, int | None]:
    sentences = _sentences(tuple(passages))
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

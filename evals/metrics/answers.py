"""Answer text against accepted answers: SQuAD normalisation, exact match, token F1, containment."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from evals.errors import MetricError
from evals.metrics.score import Score

_MARKER = re.compile(r"\s*\[\s*\d+(?:\s*[,;]\s*\d+)*\s*\]")
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@lru_cache(maxsize=32768)  # several metrics look at the same text
def strip_citations(text: str) -> str:
    """Remove citation markers such as `[1]` or `[1, 2]` with the space before them."""
    return _MARKER.sub("", text)


@lru_cache(maxsize=32768)
def normalise_answer(text: str) -> str:
    """Lower-case, drop punctuation and articles, collapse spaces.

    Source: the SQuAD 1.1 evaluation script (Rajpurkar et al. 2016).
    """
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(text: str, answers: Sequence[str]) -> Score:
    """Give 1 if the text equals an accepted answer after normalisation, else 0."""
    said = normalise_answer(strip_citations(text))
    return _best(answers, lambda answer: float(said == normalise_answer(answer)))


def token_f1(text: str, answers: Sequence[str]) -> Score:
    """Give the harmonic mean of token precision and recall, the best over accepted answers.

    In [0, 1]. Two texts without tokens agree fully; one without tokens scores 0.
    """
    said = normalise_answer(strip_citations(text)).split()
    return _best(answers, lambda answer: _f1(said, normalise_answer(answer).split()))


def contains_answer(text: str, answers: Sequence[str]) -> Score:
    """Give 1 if an accepted answer occurs as whole words in the text, else 0.

    Rewards long answers: read it beside token F1 and the number of completion tokens.
    """
    said = f" {normalise_answer(strip_citations(text))} "

    def occurs(answer: str) -> float:
        wanted = normalise_answer(answer)
        return float(bool(wanted) and f" {wanted} " in said)

    return _best(answers, occurs)


def style_match(text: str, style: str | re.Pattern[str] | Callable[[str], bool]) -> Score:
    """Give 1 if the text follows the house style: a pattern found in it, or a callable's verdict.

    Raises:
        MetricError: if the pattern is not a valid regular expression.
    """
    if isinstance(style, str):
        try:
            style = re.compile(style, re.DOTALL)
        except re.error as error:
            raise MetricError(f"style pattern {style!r} is not valid: {error}") from error
    if isinstance(style, re.Pattern):
        return Score(float(style.search(text) is not None))
    return Score(float(bool(style(text))))


def _best(answers: Sequence[str], score: Callable[[str], float]) -> Score:
    if not answers:
        return Score.unscored("no accepted answer")
    return Score(max(score(answer) for answer in answers))


def _f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    if not said or not wanted:
        return float(list(said) == list(wanted))
    common = sum((Counter(said) & Counter(wanted)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(said), common / len(wanted)
    return 2 * precision * recall / (precision + recall)

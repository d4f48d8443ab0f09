"""ROUGE-L and chrF: how much of the wording agrees. Secondary: blind to one wrong number."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from evals.metrics.answers import strip_citations
from evals.metrics.score import Score

_WORD = re.compile(r"[a-z0-9]+")
_ORDERS = 6
_BETA = 2.0


def rouge_l(text: str, answers: Sequence[str]) -> Score:
    """Give the F-measure of the longest common subsequence of words, best over answers.

    Lower-cased runs of letters and digits, no stemming, as the rouge-score package. In [0, 1].
    Source: Lin 2004.
    """
    said = _WORD.findall(strip_citations(text).lower())
    if not answers:
        return Score.unscored("no accepted answer")
    return Score(max(_lcs_f1(said, _WORD.findall(answer.lower())) for answer in answers))


def chrf(text: str, answers: Sequence[str]) -> Score:
    """Give chrF2 on character 1- to 6-grams without spaces, best over answers, in [0, 1].

    The score of one sentence as sacrebleu's `sentence_chrf` gives it: precision and recall are
    averaged over the orders that both texts are long enough for. Source: Popović 2015.
    """
    if not answers:
        return Score.unscored("no accepted answer")
    said = "".join(strip_citations(text).split())
    return Score(max(_chrf(said, "".join(answer.split())) for answer in answers))


def _lcs_f1(a: Sequence[str], b: Sequence[str]) -> float:
    if not a or not b:
        return float(a == b)
    common = _lcs(a, b)
    return 2 * common / (len(a) + len(b))


def _lcs(a: Sequence[str], b: Sequence[str]) -> int:
    """Length by Hyyrö's bit-parallel method: one big integer holds a row of the table."""
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | (1 << i)
    full = (1 << len(a)) - 1
    row = full
    for word in b:
        matched = row & places.get(word, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(a) - row.bit_count()


def _chrf(said: str, wanted: str) -> float:
    if not said or not wanted:
        return float(said == wanted)
    precisions, recalls = [], []
    # zip ends where the shorter text has no n-gram of that order left
    for order, (have, want) in enumerate(zip(_grams(said), _grams(wanted), strict=False), start=1):
        common = sum(min(count, have.get(gram, 0)) for gram, count in want.items())
        precisions.append(common / (len(said) - order + 1))
        recalls.append(common / (len(wanted) - order + 1))
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    if precision + recall == 0:
        return 0.0
    factor = _BETA**2
    return (1 + factor) * precision * recall / (factor * precision + recall)


@lru_cache(maxsize=4096)  # accepted answers come back for every arm
def _grams(text: str) -> tuple[Counter[str], ...]:
    return tuple(
        Counter([text[i : i + order] for i in range(len(text) - order + 1)])
        for order in range(1, min(_ORDERS, len(text)) + 1)
    )

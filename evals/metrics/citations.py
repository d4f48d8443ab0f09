"""Cited ids against gold ids, and abstaining when it is right or wrong to abstain."""

from collections.abc import Collection

from evals.metrics.score import Score


def citation_precision(citations: Collection[str], gold: Collection[str]) -> Score:
    """Give the share of distinct cited ids that are gold; unscored when nothing is cited."""
    if not gold:
        return Score.unscored("no gold ids")
    cited = set(citations)
    if not cited:
        return Score.unscored("nothing cited")
    return Score(len(cited & set(gold)) / len(cited))


def citation_recall(citations: Collection[str], gold: Collection[str]) -> Score:
    """Give the share of gold ids that are cited; 0 when nothing is cited."""
    if not gold:
        return Score.unscored("no gold ids")
    wanted = set(gold)
    return Score(len(set(citations) & wanted) / len(wanted))


def right_citation(citations: Collection[str], gold: Collection[str]) -> Score:
    """Give 1 if at least one gold id is cited, else 0."""
    if not gold:
        return Score.unscored("no gold ids")
    return Score(float(bool(set(citations) & set(gold))))


def only_gold_citation(citations: Collection[str], gold: Collection[str]) -> Score:
    """Give 1 if at least one gold id is cited and no other id, else 0."""
    if not gold:
        return Score.unscored("no gold ids")
    cited = set(citations)
    return Score(float(bool(cited) and cited <= set(gold)))


def abstention(abstained: bool, answerable: bool) -> Score:
    """Give 1 if the arm abstained on a question without an answer; other questions are unscored."""
    return Score.unscored("answerable") if answerable else Score(float(abstained))


def over_refusal(abstained: bool, answerable: bool) -> Score:
    """Give 1 if the arm abstained on a question with an answer (lower is better)."""
    return Score(float(abstained)) if answerable else Score.unscored("unanswerable")

"""Follow-up questions made by machine from real ones: recall@3 as typed, completed, and original.

Two questions whose gold is the same passage make a dialogue; the first one's answer stands between
them. In the second, a run of words becomes "it" (`its` before an apostrophe): in xquad_en the
longest run of capitalised words that does not open the question, in policyqa, which has few names,
the longest run of words that the first question has too. `resolvable` are the dialogues in which
the first question or its answer has a word of that run; no rule can help the others.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from benchmarks.retrieval_sets import Case, QuestionSet
from retrieval.followup import Turn, standalone_query
from retrieval.types import Hit
from retrieval.words import content_words, fold, words

_NAME = re.compile(r"(?:\bthe\s+)?\b[A-Z][\w'’.-]*(?:\s+(?:of\s+(?:the\s+)?)?[A-Z][\w'’.-]*)*")
_MOST = 600

Ask = Callable[[Case, str], Sequence[Hit]]


def measure(questions: QuestionSet, ask: Ask, seed: int = 20261122) -> dict[str, Any]:
    """Recall@3 of the second questions; `ask` searches a case's knowledge base for a question."""
    dialogues = list(make_dialogues(questions))
    dialogues = random.Random(seed).sample(dialogues, min(_MOST, len(dialogues)))
    groups: dict[str, list[dict[str, Any]]] = {"all": [], "resolvable": []}
    for first, second, typed, run in dialogues:
        history = [Turn("user", first.question), Turn("assistant", first.answer)]
        completed = standalone_query(typed, history)
        row = {
            "original": found(questions, second, ask(second, second.question)),
            "as_typed": found(questions, second, ask(second, typed)),
            "completed": found(questions, second, ask(second, completed)),
            "recognised": completed != typed,
            "left_alone": standalone_query(second.question, history) == second.question,
        }
        groups["all"].append(row)
        said = set(map(fold, words(f"{first.question} {first.answer}")))
        if said & set(map(fold, content_words(run))):
            groups["resolvable"].append(row)
    return {
        name: {"n": len(rows)}
        | {key: round(sum(r[key] for r in rows) / len(rows), 4) for key in rows[0]}
        for name, rows in groups.items()
        if rows
    }


def make_dialogues(questions: QuestionSet) -> list[tuple[Case, Case, str, str]]:
    """First question, second question, the second as a follow-up, and the words it lost."""
    together = defaultdict(list)
    for case in questions.cases:
        together[case.scope, case.cluster].append(case)
    made = []
    for cases in together.values():
        for first, second in pairwise(cases):
            run = _shared(first, second) if questions.name == "policyqa" else _name(second)
            if run:
                made.append((first, second, _replace(second.question, run), run))
    return made


def found(questions: QuestionSet, case: Case, hits: Sequence[Hit]) -> bool:
    return any(questions.shows(hit) & case.gold for hit in hits[:3])


def _name(case: Case) -> str:
    names = [m.group() for m in _NAME.finditer(case.question) if m.start() > 0]
    return max(names, key=len, default="")


def _shared(first: Case, second: Case) -> str:
    """The longest run of words of the second question in the first, with a content word in it."""
    said = f" {' '.join(words(first.question.lower()))} "
    parts = words(second.question)
    runs = [
        " ".join(parts[i:j])
        for i in range(len(parts))
        for j in range(i + 1, len(parts) + 1)
        if f" {' '.join(parts[i:j]).lower()} " in said
    ]
    usable = [run for run in runs if content_words(run) and run in second.question]
    return max(usable, key=len, default="")


def _replace(question: str, run: str) -> str:
    typed = question.replace(run, "it", 1)
    return re.sub(r"\bit['’]s?(?=\s|$)", "its", typed)

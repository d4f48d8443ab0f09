"""Reader rows: a question on one drawn passage, with near misses beside it.

Row `i` of a seed depends on nothing else, so any range can be generated anywhere. Values are
drawn anew in every row, so that only the passage can tell the answer.
"""

import random
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal

from tuning.prompt import DEFAULT_ABSTAIN, Message
from tuning.reader.mix import ReaderMix
from tuning.reader.phrasing import noisy, system_prompt, titled
from tuning.reader.policyqa import policyqa_rows
from tuning.reader.templates import (
    Filled,
    Question,
    Template,
    fill,
    fill_with,
    load_templates,
    train_templates,
)
from tuning.snapshot import Row, RowPassage

POOL = 5
_STANDARD = ReaderMix()
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"“*(])")

ReaderSplit = Literal["train", "dev"]


def generate(seed: int, count: int, *, split: ReaderSplit = "train") -> Iterator[Row]:
    """The first `count` generated rows of a seed."""
    yield from (row_at(seed, position, split) for position in range(count))


def reader_rows(
    seed: int,
    start: int,
    stop: int,
    *,
    split: ReaderSplit = "train",
    policyqa: str | None = None,
    mix: ReaderMix = _STANDARD,
) -> list[Row]:
    """Rows `start` to `stop` (excluded) of a seed, some of them from PolicyQA when it is given."""
    rows = []
    for position in range(start, stop):
        chance = random.Random(f"source:{seed}:{position}")
        if policyqa and split == "train" and chance.random() < mix.policyqa:
            pool = policyqa_rows(policyqa)
            chosen = pool[chance.randrange(len(pool))]
            rows.append(Row(**{**chosen, "id": f"{chosen['id']}-{seed}-{position}"}))
        else:
            rows.append(row_at(seed, position, split, mix))
    return rows


def row_at(
    seed: int, position: int, split: ReaderSplit = "train", mix: ReaderMix = _STANDARD
) -> Row:
    """One generated row."""
    rng = random.Random(f"reader:{split}:{seed}:{position}")
    templates = _askable(split, mix.articles)
    template = templates[rng.randrange(len(templates))]
    filled = fill(template, rng)
    question, phrasing = _pick_question(template, mix, rng)
    naming = template.naming_slots(phrasing)
    history: list[Message] = []
    if question.answer is not None and rng.random() < mix.history:
        history, named = _history(filled, question, rng)
        naming = naming | named
    asked = filled.text(phrasing)
    names = tuple(filled.values[name] for name in naming)
    answer = None if question.answer is None else filled.text(question.answer)
    own = _own_passage(filled, answer, names, mix, rng)
    others = _distractors(filled, answer, naming, (split, mix), rng)
    name = f"reader-{split}-{seed}-{position}"
    passages: list[RowPassage] = [
        {"id": f"{name}-p{i}", "title": title, "text": text}
        for i, (title, text) in enumerate([own, *others])
    ]
    return {
        "id": name,
        "question": noisy(asked, rng, protected=names) if rng.random() < mix.noise else asked,
        "answer": DEFAULT_ABSTAIN if answer is None else answer,
        "kind": "abstain" if answer is None else "grounded",
        "gold": [] if answer is None else passages[:1],
        "distractors": passages if answer is None else passages[1:],
        "component": template.component,
        "split": split,
        "system": system_prompt(rng),
        "history": history,
        "provenance": {"source": "reader", "template": template.id},
    }


@lru_cache(maxsize=4)
def _templates(split: ReaderSplit) -> tuple[Template, ...]:
    everything = load_templates()
    if split == "train":
        return tuple(train_templates(everything))
    return tuple(template for template in everything if template.held_out)


@lru_cache(maxsize=8)
def _askable(split: ReaderSplit, articles: float) -> tuple[Template, ...]:
    """The templates questions are asked about: all single ones, and a share of the articles."""
    kept = [
        template
        for template in _templates(split)
        if not template.article or random.Random(template.article).random() < articles
    ]
    return tuple(kept)


@lru_cache(maxsize=4)
def _by_field(split: ReaderSplit, field: str) -> dict[str, tuple[Template, ...]]:
    groups: dict[str, list[Template]] = {}
    for template in _templates(split):
        groups.setdefault(getattr(template, field), []).append(template)
    return {key: tuple(members) for key, members in groups.items()}


def _pick_question(template: Template, mix: ReaderMix, rng: random.Random) -> tuple[Question, str]:
    unanswerable = [q for q in template.questions if q.answer is None]
    answerable = [q for q in template.questions if q.answer is not None]
    wanted = unanswerable if unanswerable and rng.random() < mix.unanswerable else answerable
    question = rng.choice(wanted)
    return question, rng.choice(question.phrasings)


def _history(
    filled: Filled, question: Question, rng: random.Random
) -> tuple[list[Message], frozenset[str]]:
    """An earlier question on the same passage, and the slots it names."""
    earlier = [q for q in filled.template.questions if q.answer is not None and q is not question]
    if not earlier:
        return [], frozenset()
    first = rng.choice(earlier)
    phrasing = rng.choice(first.phrasings)
    answer = filled.text(first.answer or "")
    if rng.random() < 0.6:
        answer = f"{answer} [{rng.randint(1, 3)}]"
    turns: list[Message] = [
        {"role": "user", "content": filled.text(phrasing)},
        {"role": "assistant", "content": answer},
    ]
    return turns, filled.template.naming_slots(phrasing)


def _own_passage(
    filled: Filled, answer: str | None, names: Sequence[str], mix: ReaderMix, rng: random.Random
) -> tuple[str, str]:
    """Title and text; sometimes only a run of sentences around the answer, as chunking leaves."""
    title = titled(filled.title, filled.template.domain, rng)
    if answer is None or rng.random() >= mix.window:
        return title, filled.passage
    sentences = _SENTENCE_END.split(filled.passage)
    holders = [i for i, sentence in enumerate(sentences) if answer in sentence]
    if not holders or len(sentences) < 4:
        return title, filled.passage
    at = rng.choice(holders)
    start = max(0, at - rng.randint(0, 3))
    text = " ".join(sentences[start : at + 1 + rng.randint(0, 3)])
    if not all(name in f"{title} {text}" for name in names):
        return title, filled.passage
    return title, text


def _distractors(
    filled: Filled,
    answer: str | None,
    naming: frozenset[str],
    drawing: tuple[ReaderSplit, ReaderMix],
    rng: random.Random,
) -> list[tuple[str, str]]:
    """Titles and texts of near misses, hardest first."""
    template = filled.template
    split, mix = drawing
    drawn = _other_sections(filled, answer, drawing, rng)
    if naming and rng.random() < mix.redraws:
        # The same passage about somebody else: only the name in the question tells them apart.
        avoid = {name: filled.values[name] for name in naming}
        for _ in range(rng.choice((0, 1, 1, 2, 2, 3))):
            other = fill(template, rng, avoid)
            names = [filled.values[name] for name in naming]
            if not any(name in f"{other.title} {other.passage}" for name in names):
                drawn.append(other)
    # A vague question may fit another passage of the same field, so those are rarer then.
    p_same_field = 0.6 if naming else 0.3
    while len(drawn) < POOL:
        field = "domain" if rng.random() < 0.5 else "group"
        pool = _templates(split)
        if rng.random() < p_same_field:
            pool = _by_field(split, field)[getattr(template, field)]
        other_template = rng.choice(pool)
        # A section with other values would contradict the ones about the subject asked about.
        if other_template.component == template.component:
            pool = _templates(split)
            other_template = rng.choice([t for t in pool if t.component != template.component])
        drawn.append(fill(other_template, rng))
    return [(titled(d.title, d.template.domain, rng), d.passage) for d in drawn[:POOL]]


def _other_sections(
    filled: Filled,
    answer: str | None,
    drawing: tuple[ReaderSplit, ReaderMix],
    rng: random.Random,
) -> list[Filled]:
    """Passages about the same subject, as a search finds them; none that holds the answer too."""
    template = filled.template
    if not template.article:
        return []
    split, mix = drawing
    sections = [s for s in _articles(split)[template.article] if s is not template]
    rng.shuffle(sections)
    drawn = [fill_with(s, filled.values, rng) for s in sections if rng.random() < mix.sections]
    if answer is None:
        return drawn
    return [d for d in drawn if answer.lower() not in f"{d.title} {d.passage}".lower()]


@lru_cache(maxsize=4)
def _articles(split: ReaderSplit) -> dict[str, tuple[Template, ...]]:
    articles: dict[str, tuple[Template, ...]] = {}
    for template in _templates(split):
        if template.article:
            articles[template.article] = (*articles.get(template.article, ()), template)
    return articles

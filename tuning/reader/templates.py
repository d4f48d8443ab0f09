"""Passage templates: loading, checking the rules, and drawing passages with fresh slot values."""

import functools
import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuning.errors import TemplateError
from tuning.reader.names import NAMES
from tuning.reader.values import VALUES, full_name

FOLDER = Path(__file__).parent / "templates"
DEV_SHARE = 12  # one template in so many is held out
NAMING_TYPES = frozenset(NAMES) | {"person"}
_SLOT = re.compile(r"\{(\w+)(?:\.(first|last))?\}")
_ALTERNATION = re.compile(r"<([^<>]*\|[^<>]*)>")


@dataclass(frozen=True, slots=True)
class Question:
    """Phrasings of one question and the template text of its answer; None is unanswerable."""

    phrasings: tuple[str, ...]
    answer: str | None


@dataclass(frozen=True, slots=True)
class Template:
    """One passage template.

    Attributes:
        group: the file it came from.
        article: the article it is a section of; empty for a passage that stands alone. Sections
            of an article have the same slots and are about the same subject.
    """

    id: str
    domain: str
    group: str
    title: str
    passage: str
    slots: Mapping[str, Mapping[str, Any]]
    questions: tuple[Question, ...]
    article: str = ""

    @property
    def component(self) -> str:
        """What must stay on one side of a split: the article, or the passage that stands alone."""
        return self.article or self.id

    @property
    def held_out(self) -> bool:
        """Whether the template serves for dev rows only."""
        return int(hashlib.sha256(self.component.encode()).hexdigest(), 16) % DEV_SHARE == 0

    def naming_slots(self, text: str) -> frozenset[str]:
        """Slots in a text that name an entity which sets one draw apart from another."""
        title_slots = {name for name, _ in _SLOT.findall(self.title)}
        return frozenset(
            name
            for name, _ in _SLOT.findall(text)
            if self.slots[name]["type"] in NAMING_TYPES
            or (self.slots[name]["type"] == "choice" and name in title_slots)
        )


@dataclass(frozen=True, slots=True)
class Filled:
    """One draw of a template."""

    template: Template
    values: Mapping[str, str]
    title: str
    passage: str

    def text(self, pattern: str) -> str:
        """A question or answer filled with this draw's values."""
        return _SLOT.sub(lambda m: self.values[m.group(0)[1:-1]], pattern)


@functools.lru_cache(maxsize=4)
def load_templates(folder: Path = FOLDER) -> tuple[Template, ...]:
    """All templates of a folder in order of id.

    Raises:
        TemplateError: If one breaks the rules or two share an id.
    """
    templates: dict[str, Template] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                parsed = parse_line(json.loads(line), path.stem)
            except (ValueError, KeyError, TypeError, TemplateError) as error:
                raise TemplateError(f"{path.name} line {number}: {error}") from error
            for template in parsed:
                if template.id in templates:
                    raise TemplateError(
                        f"{path.name} line {number}: id {template.id!r} occurs twice"
                    )
                templates[template.id] = template
    if not templates:
        raise TemplateError(f"no templates in {folder.name!r}")
    return tuple(templates[name] for name in sorted(templates))


def parse_line(record: Mapping[str, Any], group: str) -> tuple[Template, ...]:
    """The template of a record, or those of an article: one for each of its sections.

    Raises:
        TemplateError: As `parse_template`; or if an article has fewer than two sections.
    """
    if "sections" not in record:
        return (parse_template(record, group),)
    if len(record["sections"]) < 2:
        raise TemplateError(f"article {record['id']!r} needs two sections or more")
    shared = {"domain": record["domain"], "slots": record["slots"]}
    sections = (
        parse_template({**shared, **section, "id": f"{record['id']}.{position}"}, group)
        for position, section in enumerate(record["sections"], start=1)
    )
    return tuple(replace(section, article=record["id"]) for section in sections)


def parse_template(record: Mapping[str, Any], group: str) -> Template:
    """Build one template from its JSON record.

    Raises:
        TemplateError: If a slot is undeclared or of an unknown type, or an answer is not
            literally in the passage outside alternations.
    """
    questions = [Question(tuple(q["q"]), q["a"]) for q in record["questions"]]
    questions += [Question((text,), None) for text in record.get("unanswerable", ())]
    template = Template(
        id=record["id"],
        domain=record["domain"],
        group=group,
        title=record["title"],
        passage=record["passage"],
        slots=record["slots"],
        questions=tuple(questions),
    )
    for name, slot in template.slots.items():
        if slot["type"] not in NAMING_TYPES and slot["type"] not in VALUES:
            raise TemplateError(f"slot {name!r} has the unknown type {slot['type']!r}")
    fixed = _ALTERNATION.sub("\n", template.passage)
    texts = [template.title, template.passage]
    for question in questions:
        texts += question.phrasings
        if question.answer is not None and question.answer not in fixed:
            raise TemplateError(f"answer {question.answer!r} is not in the passage")
    for text in texts:
        for name, part in _SLOT.findall(text):
            if name not in template.slots:
                raise TemplateError(f"slot {name!r} is not declared")
            if part and template.slots[name]["type"] != "person":
                raise TemplateError(f"slot {name!r} is no person and has no {part!r}")
    return template


def fill(template: Template, rng: random.Random, avoid: Mapping[str, str] | None = None) -> Filled:
    """Draw one passage.

    Args:
        template: The template.
        rng: Source of chance.
        avoid: Values that the named slots must not get (to draw another entity).
    """
    values: dict[str, str] = {}
    used: set[str] = set((avoid or {}).values())
    for name, slot in template.slots.items():
        for _ in range(20):
            drawn = _draw_value(name, slot, rng)
            # Numbers alike in one passage would make the right span ambiguous.
            if drawn[name] not in used:
                break
        used.add(drawn[name])
        values.update(drawn)
    return fill_with(template, values, rng)


def fill_with(template: Template, values: Mapping[str, str], rng: random.Random) -> Filled:
    """The passage with given values, such as another section about the same subject."""
    passage = _ALTERNATION.sub(lambda m: rng.choice(m.group(1).split("|")), template.passage)
    filled = Filled(template, values, "", "")
    return Filled(template, values, filled.text(template.title), filled.text(passage))


def train_templates(templates: Sequence[Template]) -> list[Template]:
    """Templates that training rows may use."""
    return [template for template in templates if not template.held_out]


def _draw_value(name: str, slot: Mapping[str, Any], rng: random.Random) -> dict[str, str]:
    kind = slot["type"]
    if kind == "person":
        full, first, last = full_name(rng)
        return {name: full, f"{name}.first": first, f"{name}.last": last}
    if kind in NAMES:
        return {name: NAMES[kind](rng)}
    return {name: VALUES[kind](rng, slot)}

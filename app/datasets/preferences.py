"""Preference pairs out of corrections and ratings out of thumbs, checked against today's passages.

A pair is learned from only where the correction was approved by a second person and the knowledge
base still says what it says. Ratings need no approval one by one, so they are taken only when
somebody who did not give them builds the dataset and asks for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.answers.grounding import is_abstention, without_markers
from app.datasets.repository import RatedAnswer
from app.db.tables import UseCase
from app.feedback.classification import classify_correction
from app.workspaces.policy import Principal
from evals.metrics.values import extract_values, unsupported_values
from tuning.builder import cited
from tuning.prompt import Message, Passage, render_messages
from tuning.quality.credentials import find_credentials
from tuning.quality.personal_data import find_personal_data, mask_personal_data
from tuning.snapshot import CITE, Pair, Rating
from tuning.splits import SplitItem

APPROVED = ("approved", "edited")
_MARKER = re.compile(r"\[([0-9]{1,3})\]")


@dataclass(frozen=True, slots=True)
class Preference:
    """A pair or a rating, and the item by which it is placed on one side of the split."""

    item: SplitItem
    pair: Pair | None = None
    rating: Rating | None = None


def make_preferences(
    rated: Sequence[RatedAnswer], use_case: UseCase, principal: Principal, *, ratings: bool
) -> list[Preference]:
    """Pairs of approved corrections and, where asked for, ratings that others gave."""
    found: list[Preference] = []
    for entry in rated:
        if len(entry.passages) != entry.given:
            continue  # the prompt cannot be made again: a passage has changed since
        if entry.review is not None:
            pair = _pair(entry, use_case)
            if pair is not None:
                found.append(Preference(_item("pair", entry), pair=pair))
        elif ratings and entry.feedback.author != principal.name:
            rating: Rating = {
                "messages": _messages(entry, use_case),
                "completion": _masked(entry.answer.text, entry),
                "label": entry.feedback.rating == "up",
            }
            found.append(Preference(_item("rating", entry), rating=rating))
    return [preference for preference in found if not _holds_secret(preference)]


def _pair(entry: RatedAnswer, use_case: UseCase) -> Pair | None:
    review = entry.review
    if review is None or review.state not in APPROVED or not review.final_text:
        return None
    correction = classify_correction(
        entry.answer.text, review.final_text, use_case.abstain_sentence
    )
    if not correction.pairs:
        return None
    said = [passage.text for passage in entry.passages]
    abstains = is_abstention(review.final_text, use_case.abstain_sentence)
    chosen = review.final_text.strip() if abstains else _with_citation(review.final_text, entry)
    if said and not abstains and unsupported_values(without_markers(chosen), said):
        return None
    if not said and correction.kind == "value":
        return None  # a fact without a passage would go into the weights
    better, worse = _masked(chosen, entry), _masked(entry.answer.text, entry)
    if better == worse:
        return None  # only its citation or what is masked now was changed
    return {"messages": _messages(entry, use_case), "chosen": better, "rejected": worse}


def _with_citation(text: str, entry: RatedAnswer) -> str:
    """The correction with its citations as numbers; it must not teach to leave them out.

    Its own markers count; else the passage that holds its values; else what the answer cited.
    """
    if _MARKER.search(text) or not entry.passages:
        return text.replace(f" {CITE}", "").replace(CITE, "").strip()
    before = [int(number) for number in _MARKER.findall(entry.answer.text)]
    plain = text.replace(CITE, "")
    numbers = before
    if extract_values(plain):
        order = [*before, *range(1, len(entry.passages) + 1)]
        numbers = [n for n in order if _holds(entry, n, plain)][:1]
    return cited(text, numbers)


def _holds(entry: RatedAnswer, number: int, text: str) -> bool:
    in_range = 1 <= number <= len(entry.passages)
    return in_range and not unsupported_values(text, [entry.passages[number - 1].text])


def _messages(entry: RatedAnswer, use_case: UseCase) -> list[Message]:
    history: list[Message] = [
        {"role": turn["role"], "content": _masked(turn["content"], entry)}
        for turn in entry.answer.history
        if turn.get("role") in ("user", "assistant")
    ]
    return render_messages(
        _masked(entry.answer.question, entry),
        [Passage(passage.title, passage.text) for passage in entry.passages],
        system=use_case.system_prompt,
        history=history,
        abstain_sentence=use_case.abstain_sentence,
    )


def _item(kind: str, entry: RatedAnswer) -> SplitItem:
    sources = tuple(sorted({passage.document for passage in entry.passages}))
    question = mask_personal_data(entry.answer.question)[0]
    return SplitItem(f"{kind}:{entry.feedback.id}", question, sources)


def _masked(text: str, entry: RatedAnswer) -> str:
    public = find_personal_data(" ".join(passage.text for passage in entry.passages))
    return mask_personal_data(text, keep=[span.text for span in public])[0]


def _holds_secret(preference: Preference) -> bool:
    record = preference.pair or preference.rating
    return record is not None and bool(find_credentials(str(record)))

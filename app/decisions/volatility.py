"""How fast a use case's answers change, read from its document versions and logged answers."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any

from sqlalchemy.orm import Session

from app.db.tables import Document, DocumentVersion, UseCase
from app.decisions import repository
from app.errors import BadInput
from evals.canonical import jsonable
from evals.volatility import (
    Level,
    SourceLog,
    Volatility,
    measure_volatility,
    values_changed,
    weight_by_traffic,
)

_DAY_S = 86_400.0
_LEVELS: tuple[Level, ...] = ("answers", "values", "bytes")
_ENOUGH_QUOTES = 20


def measure(
    session: Session,
    use_case: UseCase,
    moment: datetime,
    level: Level | None = None,
    *,
    confidence: float = 0.95,
) -> Volatility:
    """Measure at the given level, or at the level nearest to answers that the log allows.

    answers: a quote that an answer cited is no longer in its document. values: a number, date or
    negation of a document changed. bytes: a document got another version.
    """
    if level is not None and level not in _LEVELS:
        raise BadInput(f"level {level!r} is unknown: choose {', '.join(_LEVELS)}")
    documents = {d.id: d for d in repository.documents(session, use_case)}
    versions = repository.published_versions(session, use_case)
    if not versions:
        raise BadInput(f"use case {use_case.name!r} has no documents, so nothing can change")
    cited = repository.cited_quotes(session, use_case)
    quotes = sorted({(document, quote) for _, document, quote in cited if quote})
    read = Reading(session, documents, versions, moment)
    if level == "answers" or (level is None and len(quotes) >= _ENOUGH_QUOTES):
        kept = _quote_logs(read, cited, quotes)
        if kept:
            return measure_volatility(kept, "answers", confidence=confidence)
        if level == "answers":
            reason = (
                "no quoted passage is kept any more"
                if quotes
                else "no answer has cited anything yet"
            )
            raise BadInput(f"{reason}: measure --level values")
    level = level or "values"
    logs = {read.name(i): read.document_log(i, level) for i in versions if i in documents}
    asked: dict[str, list[str]] = {}
    for answer, document, _ in cited:
        if document in documents:
            asked.setdefault(answer, []).append(read.name(document))
    if asked:
        weighted = weight_by_traffic(logs, list(asked.values()))
        return measure_volatility(weighted, level, confidence=confidence)
    alike = [SourceLog(name, events, days) for name, (events, days) in sorted(logs.items())]
    return measure_volatility(alike, level, confidence=confidence)


def describe(found: Volatility) -> dict[str, Any]:
    """A measurement for people and programs."""
    shown: dict[str, Any] = jsonable(found)
    return shown


class Reading:
    """Document histories with their texts, read once."""

    def __init__(
        self,
        session: Session,
        documents: dict[str, Document],
        versions: dict[str, list[DocumentVersion]],
        moment: datetime,
    ) -> None:
        self._session = session
        self._documents = documents
        self._versions = versions
        self._moment = moment
        self._texts: dict[str, dict[str, str]] = {}

    def name(self, document_id: str) -> str:
        """What people call the document."""
        return self._documents[document_id].external_id

    def history(self, document_id: str) -> list[tuple[datetime, str | None]]:
        """When each text began to be answered from; None when it is not kept or was deleted."""
        versions = self._versions.get(document_id, [])
        if document_id not in self._texts:
            ids = [version.id for version in versions]
            self._texts[document_id] = repository.texts(self._session, ids)
        texts = self._texts[document_id]
        states = [(version.valid_from, texts.get(version.id)) for version in versions]
        deleted = self._documents[document_id].deleted_at
        return [*states, (deleted, None)] if deleted else states

    def document_log(self, document_id: str, level: Level) -> tuple[int, float]:
        """Changes of a document, and the days it was under observation."""
        states = self.history(document_id)
        events = 0
        for (_, before), (_, after) in pairwise(states):
            known = before is not None and after is not None
            events += not (known and level == "values") or values_changed(before or "", after or "")
        return events, self._days(states[0][0], self._end(document_id))

    def quote_log(self, document_id: str, quote: str) -> tuple[int, float]:
        """How often a quote disappeared from its document, and the days it was there."""
        states = self.history(document_id)
        ends = [moment for moment, _ in states[1:]] + [self._moment]
        events, days, there = 0, 0.0, False
        wanted = " ".join(quote.split())
        for (start, text), end in zip(states, ends, strict=True):
            holds = text is not None and wanted in " ".join(text.split())
            events += there and not holds
            there = holds
            days += self._days(start, end) if holds else 0.0
        return events, days

    def _end(self, document_id: str) -> datetime:
        return self._documents[document_id].deleted_at or self._moment

    @staticmethod
    def _days(start: datetime, end: datetime) -> float:
        return max(0.0, (end - start).total_seconds() / _DAY_S)


def _quote_logs(
    read: Reading,
    cited: list[tuple[str, str, str | None]],
    quotes: list[tuple[str, str]],
) -> list[SourceLog]:
    asked: dict[tuple[str, str], set[str]] = {}
    for answer, document, quote in cited:
        if quote:
            asked.setdefault((document, quote), set()).add(answer)
    logs = []
    for document, quote in quotes:
        events, days = read.quote_log(document, quote)
        if days > 0:
            shown = quote if len(quote) <= 60 else f"{quote[:60]}…"
            name = f"{read.name(document)}: {shown}"
            logs.append(SourceLog(name, events, days, float(len(asked[document, quote]))))
    return logs

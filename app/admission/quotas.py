"""Quotas of keys and workspaces, exact under races; kept in this process or in Redis."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from app.admission.limits import Limits
from app.errors import QuotaExceeded

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose quota it is. `kind`: key or workspace."""

    kind: str
    id: str
    name: str
    limits: Limits


class QuotaStore(Protocol):
    """Counts what subjects use; all subjects of a request are admitted together or none."""

    async def admit(self, subjects: Sequence[Subject], ticket: str) -> None:
        """Count a request as running; QuotaExceeded where a subject may not ask now."""
        ...

    async def charge(self, subjects: Sequence[Subject], tokens: int) -> None:
        """Count tokens that were used."""
        ...

    async def release(self, subjects: Sequence[Subject], ticket: str) -> None:
        """The request runs no more."""
        ...

    async def known_day(self, subject: Subject) -> bool:
        """Whether this day's count of the subject includes what was used before it began."""
        ...

    async def start_day(self, subject: Subject, tokens: int) -> None:
        """Raise this day's count to what has been used by now, once a day."""
        ...


@dataclass(slots=True)
class _Use:
    """What one subject used; times are monotonic seconds."""

    requests: deque[float] = field(default_factory=deque)
    tokens: deque[tuple[float, int]] = field(default_factory=deque)
    tokens_in_minute: int = 0
    day: str = ""
    known_day: str = ""
    tokens_in_day: int = 0
    running: set[str] = field(default_factory=set)


class MemoryQuotas:
    """Quotas of one process."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`clock` gives monotonic seconds, `today` the present moment in UTC."""
        self._clock = clock
        self._today = today
        self._uses: dict[tuple[str, str], _Use] = {}
        self._lock = threading.Lock()

    async def admit(self, subjects: Sequence[Subject], ticket: str) -> None:
        """Count a request as running; QuotaExceeded where a subject may not ask now."""
        with self._lock:
            now = self._clock()
            uses = [self._use(subject, now) for subject in subjects]
            for subject, use in zip(subjects, uses, strict=True):
                self._check(subject, use, now)
            for use in uses:
                use.requests.append(now)
                use.running.add(ticket)

    async def charge(self, subjects: Sequence[Subject], tokens: int) -> None:
        """Count tokens that were used."""
        with self._lock:
            now = self._clock()
            for subject in subjects:
                use = self._use(subject, now)
                use.tokens.append((now, tokens))
                use.tokens_in_minute += tokens
                use.tokens_in_day += tokens

    async def release(self, subjects: Sequence[Subject], ticket: str) -> None:
        """The request runs no more."""
        with self._lock:
            for subject in subjects:
                self._use(subject, self._clock()).running.discard(ticket)

    async def known_day(self, subject: Subject) -> bool:
        """Whether this day's count of the subject includes what was used before it began."""
        with self._lock:
            return self._use(subject, self._clock()).known_day == self._day()

    async def start_day(self, subject: Subject, tokens: int) -> None:
        """Raise this day's count to what has been used by now, once a day."""
        with self._lock:
            use = self._use(subject, self._clock())
            if use.known_day != self._day():
                use.known_day = self._day()
                use.tokens_in_day = max(use.tokens_in_day, tokens)

    def _use(self, subject: Subject, now: float) -> _Use:
        """The subject's use, what has left its windows taken out."""
        use = self._uses.setdefault((subject.kind, subject.id), _Use())
        while use.requests and use.requests[0] <= now - MINUTE_S:
            use.requests.popleft()
        while use.tokens and use.tokens[0][0] <= now - MINUTE_S:
            use.tokens_in_minute -= use.tokens.popleft()[1]
        if use.day != self._day():
            use.day, use.tokens_in_day = self._day(), 0
        return use

    def _check(self, subject: Subject, use: _Use, now: float) -> None:
        limits = subject.limits
        if limits.concurrency is not None and len(use.running) >= limits.concurrency:
            raise refused(subject, "requests at the same time", limits.concurrency, 1)
        most = limits.requests_per_minute
        if most is not None and len(use.requests) >= most:
            wait = use.requests[-most] + MINUTE_S - now
            raise refused(subject, "requests a minute", most, wait)
        most = limits.tokens_per_minute
        if most is not None and use.tokens_in_minute >= most:
            raise refused(subject, "tokens a minute", most, _until_below(use, most, now))
        most = limits.tokens_per_day
        if most is not None and use.tokens_in_day >= most:
            raise refused(subject, "tokens a day", most, until_tomorrow(self._today()))

    def _day(self) -> str:
        return self._today().date().isoformat()


def refused(subject: Subject, what: str, most: int, wait_s: float) -> QuotaExceeded:
    """The refusal that names whose limit it is."""
    seconds = max(1, math.ceil(wait_s))
    return QuotaExceeded(
        f"{subject.kind} {subject.name!r} may use {most} {what}: try again in {seconds} s", seconds
    )


def until_tomorrow(moment: datetime) -> float:
    """Seconds to the next day of UTC."""
    tomorrow = (moment + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (tomorrow - moment).total_seconds()


def _until_below(use: _Use, most: int, now: float) -> float:
    """Seconds until enough tokens have left the window."""
    left = use.tokens_in_minute
    for at, tokens in use.tokens:
        left -= tokens
        if left < most:
            return at + MINUTE_S - now
    return MINUTE_S

"""How much a key or a workspace may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from app.errors import BadInput


@dataclass(frozen=True, slots=True)
class Limits:
    """None is no limit. Windows slide: at most so many in any 60 seconds; a day is one of UTC.

    An answer's tokens are known only when it ends, so a window that is not used up yet lets the
    next answers in and may be overdrawn by them; the overdraft counts against later requests.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in asdict(self).values())

    def as_json(self) -> dict[str, int | None]:
        """As it is stored and shown."""
        return asdict(self)


UNLIMITED = Limits()
NAMES = tuple(field.name for field in fields(Limits))


def parse_limits(given: Mapping[str, Any] | None) -> Limits:
    """Limits as they are stored.

    Raises:
        BadInput: An unknown limit, or one that is no whole number of at least 1.
    """
    given = given or {}
    for name, value in given.items():
        if name not in NAMES:
            raise BadInput(f"limit {name!r} is unknown: choose {', '.join(NAMES)}")
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise BadInput(f"limit {name} is {value!r}: give a whole number of at least 1")
    return Limits(**given)

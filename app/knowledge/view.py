"""Whose eyes knowledge is seen with, and what is called what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class View:
    """Which versions somebody may be answered from.

    Attributes:
        groups: the asker's groups; None sees every document.
        as_of: the moment whose knowledge counts; None is now.
        without: external ids to leave out.
        where: attributes the document must have, all of them.
    """

    groups: frozenset[str] | None = None
    as_of: datetime | None = None
    without: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)


EVERYTHING_NOW = View()


@dataclass(frozen=True, slots=True)
class VersionName:
    """How people call a document version, and what has replaced it since (0: nothing did)."""

    document: str
    number: int
    superseded_by: int | None = None

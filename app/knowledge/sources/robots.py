"""robots.txt as RFC 9309 has it: longest match wins, `*` and `$`, allow wins a tie."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

MAX_BYTES = 500 * 1024
_MAX_RULES = 5000
_MAX_DELAY_S = 30.0


@dataclass(frozen=True, slots=True)
class Robots:
    """The rules for one agent: (pattern, allowed), and the delay asked for in seconds."""

    rules: tuple[tuple[str, bool], ...] = ()
    delay_s: float = 0.0

    def allows(self, path: str) -> bool:
        """Whether a path with its query may be fetched."""
        path = _same_escapes(path)
        best, allowed = -1, True
        for pattern, allow in self.rules:
            longer = len(pattern) > best or (len(pattern) == best and allow)
            if longer and _matches(pattern, path):
                best, allowed = len(pattern), allow
        return allowed


ALLOW_ALL = Robots()
ALLOW_NOTHING = Robots((("/", False),))


def parse_robots(text: str, agent: str) -> Robots:
    """The rules of the groups named `agent` (any case), else of the groups named `*`."""
    own: list[tuple[str, bool]] = []
    general: list[tuple[str, bool]] = []
    delays: dict[bool, float] = {}
    named_us = False
    agents: list[str] = []
    in_rules = False
    for line in text[:MAX_BYTES].splitlines():
        key, _, value = line.partition("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if key == "user-agent":
            agents = [value.lower()] if in_rules else [*agents, value.lower()]
            in_rules = False
            named_us |= value.lower() == agent.lower()
        elif key in ("allow", "disallow", "crawl-delay"):
            in_rules = True
            for is_own, name in ((True, agent.lower()), (False, "*")):
                if name not in agents:
                    continue
                if key == "crawl-delay":
                    delays[is_own] = _seconds(value)
                elif value:
                    (own if is_own else general).append((_same_escapes(value), key == "allow"))
    rules = own if named_us else general
    return Robots(tuple(rules[:_MAX_RULES]), delays.get(named_us, 0.0))


def _seconds(value: str) -> float:
    # Ours is a limit as well: a site must not hold a job for hours.
    return min(float(value), _MAX_DELAY_S) if re.fullmatch(r"\d{1,6}(\.\d+)?", value) else 0.0


def _same_escapes(path: str) -> str:
    """`path` with every character escaped or not as RFC 3986 wants it, so that spellings agree."""
    return quote(unquote(path, errors="surrogateescape"), safe="/?&=+$*:@!,;~'()-._",
                 errors="surrogateescape")  # fmt: skip


def _matches(pattern: str, path: str) -> bool:
    """Match from the start of the path; linear in the pattern's pieces, never exponential."""
    ends = pattern.endswith("$")
    pieces = (pattern[:-1] if ends else pattern).split("*")
    if not path.startswith(pieces[0]):
        return False
    place = len(pieces[0])
    for piece in pieces[1:-1]:
        found = path.find(piece, place)
        if found < 0:
            return False
        place = found + len(piece)
    if len(pieces) == 1:
        return not ends or place == len(path)
    last = pieces[-1]
    if ends:
        return path.endswith(last) and len(path) - len(last) >= place
    return path.find(last, place) >= 0

"""A follow-up question in words that stand alone, without a model call.

A question that leans on what was said before is joined with the content words of the earlier
questions; any other question stays as it is. Rules, not a model: the same dialogue always gives
the same query, and it costs microseconds.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from retrieval.words import content_words, fold, is_content, words

_OPENING = re.compile(
    r"^(?:(?:and|but|so|or|also|then|ok|okay|well|yes|no|sure|thanks|thank you)[\s,;:.!-]+)*", re.I
)
_JOINER = re.compile(
    r"^(?:(?:ok|okay|yes|no|well|sure)[\s,;:.!-]+)*(?:and|but|or|also|then)\b", re.I
)
_ELLIPSIS = re.compile(
    r"^(?:what|how) about\b|^what if\b"
    r"|^(?:why|how|when|where|who|which|how so)\s*(?:not|so|else)?\W*$",
    re.I,
)
_PREPOSITION = re.compile(
    r"^(?:for|in|with|without|on|to|from|as|if|since|until|by|per) (?!what\b|which\b|how\b|who\b)",
    re.I,
)
_POINTERS = frozenset(
    """it its itself they them their theirs themselves he him his himself she her hers herself
    former latter aforementioned""".split()  # noqa: SIM905
)
_POINTING_PHRASE = re.compile(
    r"\b(?:the|that|this|these|those) (?:same|other|others|one|ones|first|second|third|last|latter"
    r"|former|next|previous|rest)\b(?! (?:day|week|month|year|time|name|page|step)s?\b)"
    r"|\b(?:each|both|neither|either|any|some|none|all) of (?:them|these|those)\b"
    r"|\b(?:another|a different|a new|a second) one\b|\b(?:instead|otherwise|too|as well)\W*$"
    r"|^(?:anything|anyone|what|who|where) else\b",
    re.I,
)
# `this` and `that` point back when they stand alone or lead a noun that something else must name.
_BARE_THIS = re.compile(
    r"\b(?:this|that|these|those)(?=\s*[?.!,]|\s*$|\s+(?:is|are|was|were|will|would|can|could|does|do"
    r"|did|has|have|had|mean|means|cost|costs|work|works|happen|happens|apply|applies|for|in|on|at"
    r"|to|if|when|then|too|also)\b)",
    re.I,
)
_RELATIVE = re.compile(
    r"\b(?!see\b|do\b|about\b)(?:[a-z]{3,}s|person|anyone|someone|people) that \w", re.I
)
_THIS_NOUN = re.compile(r"\b(?:this|that|these|those) ([a-z]+)", re.I)
# Nouns that name the speaker's own whereabouts: "this website" needs no earlier sentence.
_HERE = frozenset(
    """app application article chat company contract day document form handbook manual month morning
    organisation organization page plan policy portal practice service services shop site store
    system time today tool way website week year""".split()  # noqa: SIM905
)
_NOT_NOUN = frozenset("a an the my your our there he she it they i you we".split())  # noqa: SIM905
_THAT_CLAUSE = re.compile(
    r"\b(?:say|says|said|state|states|stated|mean|means|claim|claims|know|sure|think|sign|fact|so"
    r"|believe|ensure|is it true|prove|show|shows|suggest|suggests|argue|argued) that\b",
    re.I,
)
_EMPTY_IT = re.compile(
    r"\b(?:is|was|would|will|does|did|can|could|how long (?:does|will|did)|make|makes|made) it"
    r" (?:be )?(?:possible|allowed|necessary|required|ok|okay|true|safe|legal|easy|hard|better"
    r"|worth|mandatory|normal|common|important|take|takes|matter|rain|feasible|acceptable)\b"
    r"(?! to (?:do )?(?:it|that|this)\b)",
    re.I,
)
_CLAUSE = re.compile(
    r",|;|\b(?:if|when|because|but|while|after|before|who|which|that|where|since|until|and|or)\b",
    re.I,
)
# Verbs and nouns that ask without naming a subject.
_LIGHT = frozenset(
    """happen happens happened mean means work works need needs cost costs use used using many much
    long often far big old early late soon kind sort type example examples detail details more
    explain tell describe list show difference better best exactly possible allowed apply applies
    included include includes count counts take takes change changes changed differ end start
    call called name named find see expensive required year years month months day days date dates
    time times""".split()  # noqa: SIM905
)
_GREETINGS = frozenset(
    """afternoon alright bye cool evening goodbye great hello hey hi morning nice ok okay perfect
    thank thanks understood""".split()  # noqa: SIM905
)
_POLITE = _GREETINGS | frozenset("a good lot many much no so very well yes you".split())  # noqa: SIM905
_CAPITALISED = re.compile(
    r"(?<![.!?:]\s)(?<!^)\b[A-Z][\w'’&.-]*\w(?:\s+(?:of\s+|the\s+)?[A-Z][\w'’&.-]*\w)*"
)
_VALUE = re.compile(r"(?:[€$£]\s?)?\b\d[\d.,:/-]*\d\b%?|\b\d+\b%?")

# A longer question says enough by itself; the rules would only take time over it.
_LONGEST = 500
_FEW_WORDS = 6
_READ_OF_ANSWER = 2_000
_MOST_TURNS = 3
_MOST_WORDS = 12
_MOST_ENTITIES = 4


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said."""

    role: Literal["user", "assistant"]
    text: str


def standalone_query(question: str, history: Sequence[Turn]) -> str:
    """The question, followed by the words it leans on, if it leans on any.

    Those are the content words of the earlier questions, the latest first and back to one that
    stands alone (at most 3 questions and 12 words), then up to 4 names and values of the last
    answer. Words the question already has are left out.

    Args:
        question: the user's last words.
        history: the turns before them, oldest first; without any the question is unchanged.
    """
    asked = [turn.text for turn in history if turn.role == "user" and turn.text.strip()]
    if not asked or not depends_on_history(question):
        return question
    anchors = []
    for text in reversed(asked[-_MOST_TURNS:]):
        if _is_social(text):
            continue
        anchors.append(text)
        if not depends_on_history(text):
            break
    seen = set(map(fold, words(question)))
    added = _new((word for text in anchors for word in content_words(text)), seen, _MOST_WORDS)
    answers = [turn.text for turn in history if turn.role == "assistant"]
    if answers and history[-1].role == "assistant":
        added += _new(_entities(answers[-1]), seen, _MOST_ENTITIES)
    return f"{question.strip()} {' '.join(added)}" if added else question


def depends_on_history(question: str) -> bool:
    """Whether the question needs earlier turns: it points back, or says too little alone."""
    text = question.strip()
    if not text or len(text) > _LONGEST or _is_social(text):
        return False
    core = _OPENING.sub("", text, count=1)
    if _ELLIPSIS.search(core) or _POINTING_PHRASE.search(core):
        return True
    if _PREPOSITION.match(core) and len(words(core)) <= _FEW_WORDS:
        return True
    if _points_back(core) or _points_with_this(core):
        return True
    heavy = _heavy(core)
    named = any(word[:1].isupper() for word in heavy[1:])
    return not heavy or (len(heavy) == 1 and _JOINER.match(text) is not None and not named)


def _is_social(text: str) -> bool:
    """A greeting or thanks, in which there is nothing to look for."""
    said = {word.lower() for word in words(text[:_LONGEST])}
    return bool(said & _GREETINGS) and said <= _POLITE


def _points_back(text: str) -> bool:
    """A pronoun that nothing earlier in the same sentence explains."""
    plain = _EMPTY_IT.sub(" ", text)
    for match in re.finditer(r"[\w'’]+", plain):
        word = match.group().lower().replace("’", "'").removesuffix("'s").removesuffix("'re")
        before = plain[: match.start()]
        if word in _POINTERS and not _explained(before) and not _plural(word, before):
            return True
    return False


def _plural(pointer: str, before: str) -> bool:
    """Whether a plural noun owns the pointer: "customers cancel their", not "rights do they"."""
    owned = pointer in ("their", "theirs", "them", "themselves")
    return owned and any(word.endswith("s") and not word.endswith("ss") for word in _heavy(before))


def _points_with_this(text: str) -> bool:
    plain = _THAT_CLAUSE.sub(" ", text)
    for match in _BARE_THIS.finditer(plain):
        before = plain[: match.start()]
        if not _explained(before) and not _RELATIVE.search(plain[: match.end() + 2]):
            return True
    for match in _THIS_NOUN.finditer(plain):
        noun = match.group(1).lower()
        # "the rule that applies": after a noun, `that` opens a clause.
        clause = match.group().lower().startswith("that") and _heavy(plain[: match.start()])
        if noun not in _HERE and noun not in _NOT_NOUN and is_content(noun) and not clause:
            return not _explained(plain[: match.start()])
    return False


def _explained(before: str) -> bool:
    """Whether the words before a pronoun name what it can stand for."""
    heavy = _heavy(before)
    if len(heavy) >= 3 or any(word[:1].isupper() for word in words(before)[1:] if is_content(word)):
        return True
    clauses = [m.start() for m in _CLAUSE.finditer(before)]
    return bool(clauses) and len(_heavy(before[: clauses[-1]])) >= 2


def _heavy(text: str) -> list[str]:
    return [word for word in content_words(text) if word.lower() not in _LIGHT]


def _entities(answer: str) -> list[str]:
    """Names and values in the order in which they stand."""
    answer = answer[:_READ_OF_ANSWER]
    found = [*_CAPITALISED.finditer(answer), *_VALUE.finditer(answer)]
    return [match.group() for match in sorted(found, key=lambda match: match.start())]


def _new(candidates: Iterable[str], seen: set[str], most: int) -> list[str]:
    """The first `most` whose words are not all seen yet; `seen` grows with them."""
    kept: list[str] = []
    for text in candidates:
        keys = set(map(fold, words(text)))
        if len(kept) < most and keys - seen:
            seen |= keys
            kept.append(text)
    return kept

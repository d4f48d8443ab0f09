"""Abusive words in answers, by a short English list.

Modest on purpose: it finds open abuse and slips of frustrated agents, not sarcasm or veiled
hostility, and no other language. A finding asks a person to look.
"""

import re

_LIST = (
    "idiot idiots idiotic moron morons moronic imbecile stupid dumbass dumb retard retarded "
    "bastard bastards bitch bitches bullshit crap crappy damn damned fuck fucked fucker fucking "
    "shit shitty asshole assholes arsehole wanker prick dickhead loser losers pathetic scum "
    "whore slut twat douchebag jackass"
)
_ABUSIVE = frozenset(_LIST.split())
_PHRASES = re.compile(
    r"\b(?:shut up|go to hell|screw you|drop dead|kill yourself|piss(?:ed)? off|waste of (?:time|"
    r"space)|are you (?:blind|deaf)|what is wrong with you)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[a-z]+")


def abusive_words(text: str) -> tuple[str, ...]:
    """The abusive words and phrases of a text, in their order, repeated ones once."""
    words = [word for word in _WORD.findall(text.lower()) if word in _ABUSIVE]
    return tuple(dict.fromkeys([*words, *(m.lower() for m in _PHRASES.findall(text))]))

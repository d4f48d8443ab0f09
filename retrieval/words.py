"""Words that carry a question's content, folded so that `refunds` meets `refund`."""

import re
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
_POSSESSIVE = re.compile(r"['’]s?$")

_STOP_WORDS = """
a about above after again against all also am an and any are aren't as at be because been
before being below between both but by can cannot can't could couldn't did didn't do does
doesn't doing don't down during each either else ever every few for from further get gets
getting give go goes going got had hadn't has hasn't have haven't having he hello hence her
here hers herself hi him himself his how however i i'd i'll i'm i've if in instead into is
isn't it it's its itself just kindly know let let's like make makes many may me might mine
more most much must my myself neither no nor not now of off ok okay on once one ones only or
other others ought our ours ourselves out over own please quite really same say says shall
she should shouldn't since so some such tell than thank thanks that that's the their theirs
them themselves then there there's these they they're thing things this those though through
thus to too under until up upon us very via want was wasn't we we're were weren't what
what's when where whether which while who whom whose why will with within without won't
would wouldn't yes yet you you're your yours yourself
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


def words(text: str) -> list[str]:
    """All words in order, as they are written; numbers and `3.5` or `e-mail` are one word."""
    return _WORD.findall(text)


def is_content(word: str) -> bool:
    """Whether a word tells what a text is about: no function word and no lone letter."""
    lowered = word.lower().replace("’", "'")
    return lowered not in STOP_WORDS and (len(lowered) > 1 or lowered.isdigit())


def content_words(text: str) -> list[str]:
    """The content words in order, as they are written, repeats included."""
    return [word for word in words(text) if is_content(word)]


@lru_cache(maxsize=1 << 16)
def fold(word: str) -> str:
    """Lower case without a possessive or the commonest English endings.

    A light stemmer in the manner of Harman (1991), "How effective is suffixing?", JASIS: it may
    join too little, never words that differ by more than an ending.
    """
    word = _POSSESSIVE.sub("", word.lower())
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-2] if word.endswith(("ches", "shes", "xes", "sses")) else word[:-1]
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 3:
            return stem[:-1] if stem[-1] == stem[-2] and stem[-1] not in "ls" else stem
    return word.removesuffix("e") if len(word) > 4 else word

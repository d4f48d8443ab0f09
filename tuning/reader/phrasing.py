"""How people and products vary the form of things: question noise, titles, system prompts."""

import random

from tuning.prompt import DEFAULT_SYSTEM

SYSTEMS = (
    DEFAULT_SYSTEM,
    "You are a helpful assistant.",
    "You answer customer questions.",
    "You are the support assistant of an online shop. Be brief.",
    "You help employees find information in the company handbook.",
    "You are a knowledge base assistant. Keep answers short and factual.",
    "Answer the user's question as precisely as you can.",
    "You are a documentation bot for developers.",
    "You are a friendly agent at a help desk.",
    "You work at the front desk of a city service. Answer politely and to the point.",
    "You are an encyclopedia assistant. Use only the given text.",
    "You support patients and visitors with questions about our services.",
    "You are an assistant for policy questions. Quote the policy, do not interpret it.",
)
_SECTIONS = (
    "Overview",
    "Details",
    "General information",
    "History",
    "Background",
    "Summary",
    "Terms",
    "Frequently asked questions",
    "Introduction",
    "Notes",
    "Description",
    "Key facts",
)
_COLLECTIONS = (
    "Help centre",
    "Knowledge base",
    "Handbook",
    "Articles",
    "Documentation",
    "Encyclopedia",
    "Guides",
    "Library",
)
_OPENERS = (
    "Hi, ",
    "Hello, ",
    "Quick question: ",
    "Could you tell me: ",
    "Please tell me, ",
    "I'd like to know: ",
    "hey ",
)
_KEYS = {
    "a": "s",
    "e": "r",
    "i": "o",
    "o": "p",
    "n": "m",
    "t": "r",
    "s": "d",
    "r": "t",
    "l": "k",
    "u": "i",
}


def system_prompt(rng: random.Random) -> str:
    """The default system prompt in most cases, else one of a dozen."""
    return DEFAULT_SYSTEM if rng.random() < 0.5 else rng.choice(SYSTEMS)


def titled(title: str, domain: str, rng: random.Random) -> str:
    """A passage title as some knowledge base would show it, with or without a heading path."""
    style = rng.random()
    if style < 0.5:
        return title
    if style < 0.68:
        return f"{title} > {rng.choice(_SECTIONS)}"
    if style < 0.78:
        return f"{rng.choice(_COLLECTIONS)} > {title}"
    if style < 0.86:
        return f"{domain.capitalize()} > {title}"
    if style < 0.91:
        return f"{domain.capitalize()} > {title} > {rng.choice(_SECTIONS)}"
    if style < 0.95:
        return domain.capitalize()
    return "-".join(title.lower().replace("'", "").split()) + rng.choice((".md", ".html", ""))


def noisy(question: str, rng: random.Random, *, protected: tuple[str, ...] = ()) -> str:
    """A question as people type it: mostly clean, sometimes lower case, bare or mistyped.

    Args:
        question: The clean question.
        rng: Source of chance.
        protected: Texts in which no typing error is made (the names asked about).
    """
    if rng.random() < 0.05:
        opener = rng.choice(_OPENERS)
        question = opener + question[0].lower() + question[1:]
    if rng.random() < 0.05:
        question = _mistyped(question, rng, protected)
    if rng.random() < 0.12:
        question = question.lower()
    if rng.random() < 0.1:
        question = question.rstrip("?")
    return question


def _mistyped(text: str, rng: random.Random, protected: tuple[str, ...]) -> str:
    spots = [
        i
        for i in range(1, len(text) - 1)
        if text[i - 1 : i + 2].isalpha() and not _inside(text, i, protected)
    ]
    if not spots:
        return text
    i = rng.choice(spots)
    style = rng.random()
    if style < 0.4:
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    if style < 0.7:
        return text[:i] + text[i + 1 :]
    return text[:i] + _KEYS.get(text[i], text[i] * 2) + text[i + 1 :]


def _inside(text: str, position: int, protected: tuple[str, ...]) -> bool:
    for part in protected:
        start = text.find(part)
        if part and start >= 0 and start - 1 <= position <= start + len(part):
            return True
    return False

"""Whether answers have one format, and nothing in them is left from a template or a chat log."""

import json
import re
from collections import Counter
from collections.abc import Sequence

_LEFTOVERS = (
    (
        "a placeholder that was never filled",
        re.compile(r"\{\{.+?\}\}|<(?:insert|todo)[^>]*>", re.I),
    ),
    ("a control token", re.compile(r"<\|[a-z_]+\|>|\[/?INST\]|</?s>")),
    ("markup", re.compile(r"</?(?:div|span|br|p|a|table|td|tr|script)\b[^>]*>", re.I)),
    ("a replacement character", re.compile("\ufffd")),
)
_LIST = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+", re.M)
_MAJORITY, _MIN_ROWS = 0.8, 20


def leftovers(answer: str) -> tuple[str, ...]:
    """What a template, a page or a chat log left in an answer."""
    return tuple(name for name, pattern in _LEFTOVERS if pattern.search(answer))


def format_of(answer: str) -> str:
    """The format of an answer: json, broken json, list, code or plain."""
    text = answer.strip()
    if text[:1] in "{[" and text[-1:] in "}]" and '"' in text:
        try:
            json.loads(text)
        except ValueError:
            return "broken json"
        return "json"
    if "```" in text:
        return "code"
    return "list" if len(_LIST.findall(text)) >= 2 else "plain"


def odd_formats(answers: Sequence[str]) -> dict[int, str]:
    """Answers out of line, by position, each with its reason.

    Broken JSON always is; another format is where at least 80 % of 20 or more answers are JSON.
    JSON answers with other keys than the commonest ones are out of line too.
    """
    formats = [format_of(answer) for answer in answers]
    odd = {i: "it is broken JSON" for i, name in enumerate(formats) if name == "broken json"}
    json_at = [i for i, name in enumerate(formats) if name == "json"]
    if len(answers) < _MIN_ROWS or len(json_at) < _MAJORITY * len(answers):
        return odd
    keys = {i: _keys(answers[i]) for i in json_at}
    common, count = Counter(keys.values()).most_common(1)[0]
    for i, name in enumerate(formats):
        if name not in ("json", "broken json"):
            odd[i] = f"it is {name} where the others are JSON"
        elif i in keys and keys[i] != common and count >= _MAJORITY * len(json_at):
            odd[i] = f"its keys are {', '.join(keys[i])} where the others have {', '.join(common)}"
    return odd


def _keys(answer: str) -> tuple[str, ...]:
    decoded = json.loads(answer)
    return tuple(sorted(decoded)) if isinstance(decoded, dict) else ("no object",)

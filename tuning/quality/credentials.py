"""Secrets in text: known key formats, and long random-looking strings named as secrets."""

import math
import re
from collections import Counter
from dataclasses import dataclass

# Public formats of the issuers; each prefix is documented by its issuer.
_FORMATS = {
    "private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "AWS access key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{50,})\b"),
    "GitLab token": re.compile(r"\bglpat-[\w-]{20,}"),
    "Slack token": re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    "Google API key": re.compile(r"\bAIza[\w-]{35}\b"),
    "Stripe key": re.compile(r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}\b"),
    "model provider key": re.compile(r"\bsk-(?:proj-|ant-)?[\w-]{20,}"),
    "Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "npm or PyPI token": re.compile(r"\b(?:npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,})"),
    "JSON web token": re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"),
    "password in a URL": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@]+:[^\s/:@]{3,}@"),
}
_NAMED = re.compile(
    r"(?:pass(?:word|wd|phrase)?|secret|api[_ -]?key|access[_ -]?key|token|credential)s?"
    r"[\"']?\s*(?:is|=|:)\s*[\"']?(?P<value>[^\s\"',;<>]{8,})",
    re.IGNORECASE,
)
_RANDOM = re.compile(r"(?<![\w/+=.-])[A-Za-z0-9+/_=-]{32,}(?![\w/+=-])")
_MIN_NAMED_BITS, _MIN_BITS = 2.8, 4.2


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret as it stands in a text. Only its place is shown, never its characters."""

    kind: str
    start: int
    end: int


def find_credentials(text: str) -> tuple[Credential, ...]:
    """Find keys of known formats, values named as secrets, and long strings of high entropy."""
    found = [
        Credential(kind, *match.span())
        for kind, pattern in _FORMATS.items()
        for match in pattern.finditer(text)
    ]
    for match in _NAMED.finditer(text):
        value = match["value"].rstrip(".!?)")
        mixed = any(c.isdigit() for c in value) or not value.isalpha()
        if mixed and len(value) >= 8 and entropy(value) >= _MIN_NAMED_BITS:
            found.append(Credential("named secret", *match.span("value")))
    for match in _RANDOM.finditer(text):
        value = match.group()
        if (
            all(re.search(kind, value) for kind in (r"\d", "[a-z]", "[A-Z]"))
            and entropy(value) >= _MIN_BITS
        ):
            found.append(Credential("random string", *match.span()))
    kept: list[Credential] = []
    for credential in found:
        if not any(credential.start < k.end and k.start < credential.end for k in kept):
            kept.append(credential)
    return tuple(sorted(kept, key=lambda credential: credential.start))


def entropy(text: str) -> float:
    """Shannon entropy of the characters in bits; English prose has about 4.1, hex at most 4."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())

"""Token ids of text parts that come again: template pieces, system texts, passages.

Encoding a prompt of 600 tokens took longer than anything else that is done for an answer, and
nearly all of its parts have been encoded before.
"""

import json
import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

_MOST_PARTS = 8_192
_LONGEST_PART = 8_000
# A part ends where an empty line follows; the line breaks belong to the next part.
_BREAK = re.compile(r"(?<=\S)(?=\n\n)")

Encode = Callable[[str], list[int]]


class TokenCache:
    """What one tokenizer made of texts, the least recently used ones forgotten. Thread-safe."""

    def __init__(self, tokenizer: Any) -> None:
        """Remember nothing yet; `tokenizer` is only asked how it takes texts apart."""
        self.size = len(tokenizer)
        self.control = frozenset(tokenizer.added_tokens_decoder) | frozenset(
            tokenizer.all_special_ids
        )
        self._apart = parts_stand_alone(tokenizer)
        self._known: OrderedDict[tuple[str, str], Sequence[int]] = OrderedDict()
        self._lock = threading.Lock()

    def ids(self, kind: str, text: str, encode: Encode) -> list[int]:
        """`encode(text)`, made of the parts' ids where that is the same.

        Args:
            kind: what `encode` does; the same text has other ids in a template than in a passage.
            text: template piece or content.
            encode: gives the ids of a whole text.
        """
        parts = _BREAK.split(text) if self._apart and kind == "content" else [text]
        found: list[int] = []
        for part in parts:
            found.extend(self._part(kind, part, encode))
        return found

    def _part(self, kind: str, part: str, encode: Encode) -> Sequence[int]:
        key = (kind, part)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        ids = encode(part)
        if len(part) <= _LONGEST_PART:
            with self._lock:
                self._known[key] = array("I", ids)
                if len(self._known) > _MOST_PARTS:
                    self._known.popitem(last=False)
        return ids


_caches: WeakKeyDictionary[Any, TokenCache] = WeakKeyDictionary()
_caches_lock = threading.Lock()


def cache_of(tokenizer: Any) -> TokenCache:
    """The tokenizer's cache, a new one after tokens were added to it."""
    with _caches_lock:
        found = _caches.get(tokenizer)
        if found is None or found.size != len(tokenizer):
            found = _caches[tokenizer] = TokenCache(tokenizer)
        return found


def parts_stand_alone(tokenizer: Any) -> bool:
    """Whether a text's ids are those of its parts, cut in front of an empty line, one by one.

    True for byte-level BPE with GPT-2's pattern and no normaliser (SmolLM2, GPT-2, StarCoder2):
    none of the pattern's alternatives reaches from another character into a line break, and
    merges stay within what the pattern found. Others, whose patterns let punctuation take line
    breaks along (Llama 3, Qwen 2), are encoded whole. An added token that is not special is cut
    out of text before the pattern sees it and may take blanks with it: encoded whole as well.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    data = json.loads(backend.to_str())
    before = data.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", [before])
    byte_level = [step for step in steps if step.get("type") == "ByteLevel"]
    return (
        data.get("normalizer") is None
        and data["model"].get("type") == "BPE"
        and not data["model"].get("dropout")
        and all(step.get("type") in ("ByteLevel", "Digits") for step in steps)
        and len(byte_level) == 1
        and bool(byte_level[0].get("use_regex"))
        and not byte_level[0].get("add_prefix_space")
        and all(token["special"] for token in data.get("added_tokens", ()))
    )

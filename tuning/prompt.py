"""The one prompt renderer, used for training rows and for serving alike.

Untrusted text (passages, questions, history) is tokenised apart from the chat template, with
special tokens split into plain text, so that it can never produce a control token.
"""

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from tuning.errors import PromptError
from tuning.token_cache import cache_of

FORMAT_VERSION = 1
DEFAULT_SYSTEM = "You are a helpful support assistant."
DEFAULT_ABSTAIN = "I could not find this in the knowledge base."
PASSAGES_INSTRUCTION = (
    "Answer from the numbered passages. Cite the passage you used, like [1]. "
    "If they do not contain the answer, say: {abstain}"
)
QUESTION_PREFIX = "Question: "

Role = Literal["system", "user", "assistant"]
_ROLES = ("system", "user", "assistant")
_SENTINEL = "\u27e6tandem:{}\u27e7"

# Tokenizers keep "split special tokens" as state on the shared object; without the lock another
# thread could flip it between setting and encoding, and untrusted text would yield control ids.
_TOKENIZER_LOCK = threading.Lock()


class Message(TypedDict):
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Passage:
    """One numbered passage of a prompt; `title` is already "Title > Heading > Sub"."""

    title: str
    text: str


def render_messages(
    question: str,
    passages: Sequence[Passage] = (),
    *,
    system: str = DEFAULT_SYSTEM,
    history: Sequence[Message] = (),
    abstain_sentence: str = DEFAULT_ABSTAIN,
) -> list[Message]:
    """Build the conversation; passages are numbered from 1 in the order given.

    Raises:
        PromptError: If the abstention sentence does not start with the default one, or a history
            turn has a role other than user or assistant.
    """
    if not abstain_sentence.startswith(DEFAULT_ABSTAIN.rstrip(".")):
        raise PromptError(
            f"abstain sentence {abstain_sentence!r} must start with {DEFAULT_ABSTAIN!r}"
        )
    for turn in history:
        if turn["role"] not in ("user", "assistant"):
            raise PromptError(f"history role {turn['role']!r} must be 'user' or 'assistant'")
    if passages:
        system = f"{system}\n{PASSAGES_INSTRUCTION.format(abstain=abstain_sentence)}"
        blocks = [
            # A title is one line: a line break in it could imitate the start of another passage.
            f"[{number}] {' '.join(passage.title.split())}\n{passage.text.strip()}"
            for number, passage in enumerate(passages, start=1)
        ]
        user = "\n\n".join([*blocks, f"{QUESTION_PREFIX}{question.strip()}"])
    else:
        user = question.strip()
    turns: list[Message] = [{"role": "system", "content": system}]
    turns.extend({"role": turn["role"], "content": turn["content"]} for turn in history)
    turns.append({"role": "user", "content": user})
    return turns


def encode(
    tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool = True
) -> list[int]:
    """Token ids of the rendered conversation, ready for the engine as they are.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template.
        messages: The conversation; contents are untrusted.
        add_generation_prompt: Append the template's assistant header.

    Raises:
        PromptError: If the template drops, repeats or reorders a content, or a role is unknown.
    """
    template_pieces = _template_pieces(tokenizer, messages, add_generation_prompt)
    ids: list[int] = []
    for index, piece in enumerate(template_pieces):
        ids.extend(_template_ids(tokenizer, piece))
        if index < len(messages):
            ids.extend(encode_text(tokenizer, messages[index]["content"]))
    return ids


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of untrusted text; never an id of a control token."""
    if not text:
        return []
    cache = cache_of(tokenizer)
    return cache.ids("content", text, lambda part: _content_ids(tokenizer, part, cache.control))


def _content_ids(tokenizer: Any, text: str, control: frozenset[int]) -> list[int]:
    ids = _plain_ids(tokenizer, text)
    if control.isdisjoint(ids):
        return ids
    # Added tokens that are not marked special survive "split special tokens": cut each one after
    # its first character and tokenise the parts apart.
    parts = [text]
    for token in tokenizer.added_tokens_decoder.values():
        name = str(token)
        if len(name) > 1:
            parts = [cut for part in parts for cut in _cut(part, name)]
    ids = [i for part in parts if part for i in _plain_ids(tokenizer, part)]
    return [i for i in ids if i not in control]


def control_ids(tokenizer: Any) -> frozenset[int]:
    """Ids that only the chat template may produce."""
    return cache_of(tokenizer).control


def end_of_turn_id(tokenizer: Any) -> int:
    """The id that ends an assistant turn (the tokenizer's end-of-sequence token)."""
    if tokenizer.eos_token_id is None:
        raise PromptError("the tokenizer names no end-of-sequence token")
    return int(tokenizer.eos_token_id)


def template_digest(tokenizer: Any) -> str:
    """SHA-256 over the chat template and the prompt constants; equal digests, equal prompts."""
    identity = {
        "format": FORMAT_VERSION,
        "chat_template": tokenizer.chat_template,
        "system": DEFAULT_SYSTEM,
        "instruction": PASSAGES_INSTRUCTION,
        "abstain": DEFAULT_ABSTAIN,
        "question": QUESTION_PREFIX,
    }
    canonical = json.dumps(identity, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _template_pieces(
    tokenizer: Any, messages: Sequence[Message], add_generation_prompt: bool
) -> list[str]:
    for message in messages:
        if message["role"] not in _ROLES:
            raise PromptError(f"role {message['role']!r} must be one of {', '.join(_ROLES)}")
    sentinels = [_SENTINEL.format(i) for i in range(len(messages))]
    rendered = tokenizer.apply_chat_template(
        [
            {"role": m["role"], "content": sentinel}
            for m, sentinel in zip(messages, sentinels, strict=True)
        ],
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
    )
    pieces = []
    for sentinel in sentinels:
        before, found, rendered = rendered.partition(sentinel)
        if not found or sentinel in rendered:
            raise PromptError("the chat template drops, repeats or reorders message contents")
        pieces.append(before)
    return [*pieces, rendered]


def _template_ids(tokenizer: Any, piece: str) -> list[int]:
    if not piece:
        return []
    return cache_of(tokenizer).ids("template", piece, lambda part: _piece_ids(tokenizer, part))


def _piece_ids(tokenizer: Any, piece: str) -> list[int]:
    with _TOKENIZER_LOCK:
        ids: list[int] = tokenizer(piece, add_special_tokens=False, split_special_tokens=False)[
            "input_ids"
        ]
    return ids


def _plain_ids(tokenizer: Any, text: str) -> list[int]:
    # A lone surrogate is not valid UTF-8 and would make the tokenizer raise.
    text = text.encode("utf-8", "replace").decode("utf-8")
    with _TOKENIZER_LOCK:
        ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
    return ids


def _cut(text: str, token: str) -> list[str]:
    parts = []
    start = 0
    while (found := text.find(token, start)) >= 0:
        parts.append(text[start : found + 1])
        start = found + 1
    return [*parts, text[start:]]

"""Stand-ins without weights: an engine that reads its prompt, an encoder, a byte tokenizer."""

import re
import threading
import time
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from tiny_model import make_tokenizer

from app.engines.types import AdapterRef, Generation, GenerationRequest
from tuning.prompt import DEFAULT_ABSTAIN

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_WORD = re.compile(r"\w+")
_PASSAGE = re.compile(r"^\[(\d+)\] ([^\n]*)\n(.*?)(?=\n\n\[\d+\] |\n\nQuestion: |\Z)", re.M | re.S)
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]?")
_STOP = frozenset(
    [
        "what",
        "when",
        "where",
        "which",
        "does",
        "do",
        "is",
        "are",
        "the",
        "how",
        "can",
        "much",
        "many",
        "for",
        "and",
        "you",
    ]
)


def make_byte_tokenizer():
    """A real fast tokenizer of 256 bytes and three control tokens, with a chat template."""
    return make_tokenizer(SPECIAL, CHAT_TEMPLATE)


class HashingEncoder:
    """Bag of hashed words: texts that share words have a higher cosine. Deterministic."""

    dimension = 64
    identity = "hashing@0"

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.n_passages = 0

    def embed_passages(self, texts: Sequence[str], batch_size: int | None = None) -> np.ndarray:
        time.sleep(self.delay_s)
        self.n_passages += len(texts)
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        return np.stack([self.embed_query(text) for text in texts])

    def embed_query(self, text: str) -> np.ndarray:
        vector = np.full(self.dimension, 1e-3, dtype=np.float32)
        for word in content_words(text):
            vector[zlib.crc32(word.encode()) % self.dimension] += 1
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def count_tokens(self, text: str) -> int:
        return len(re.findall(r"\w+|[^\w\s]", text))


class FakeEngine:
    """Answers with the passage sentence that shares most words with the question.

    With an adapter it cites the passage and abstains when no passage shares two words with the
    question; without one it neither cites nor abstains, as the plain base model does. Without
    passages it says a fixed sentence. Equal prompts give equal answers.
    """

    context_tokens = 32_768

    def __init__(self, tokenizer) -> None:
        self._tokenizer = tokenizer
        self.prompts: list[str] = []
        self.resident: set[str] = set()
        self.cancelled = 0
        self.active = 0
        self.closed = False
        self.piece_delay_s = 0.0
        self.failure: Exception | None = None
        self._lock = threading.Lock()

    @property
    def identity(self) -> dict[str, str]:
        return {
            "engine": "fake",
            "engine_version": "1",
            "base_sha256": "0" * 64,
            "file": "none",
        }

    def generate(self, request: GenerationRequest) -> Generation:
        *_, generation = self.stream(request)
        return generation

    def stream(self, request: GenerationRequest) -> Iterator[str | Generation]:
        if request.adapter is not None:
            self.load_adapter(request.adapter)
        if self.failure is not None:
            raise self.failure
        prompt = self._tokenizer.decode(request.prompt_ids)
        self.prompts.append(prompt)
        text = answer_to(prompt, cites=request.adapter is not None)
        finished = False
        with self._lock:
            self.active += 1
        try:
            for piece in re.findall(r"\s*\S+", text):
                time.sleep(self.piece_delay_s)
                yield piece
            finished = True
        finally:
            with self._lock:
                self.active -= 1
                self.cancelled += not finished
        yield Generation(
            text=text,
            finish_reason="stop",
            prompt_tokens=len(request.prompt_ids),
            completion_tokens=len(text.split()),
            prefill_s=0.001,
            decode_s=0.001,
        )

    def load_adapter(self, adapter: AdapterRef) -> None:
        self.resident.add(adapter.digest)

    def drop_adapter(self, digest: str) -> None:
        self.resident.discard(digest)

    def close(self) -> None:
        self.closed = True


def answer_to(prompt: str, *, cites: bool) -> str:
    """What `FakeEngine` says to a rendered prompt."""
    user = prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
    question = user.rpartition("Question: ")[2]
    asked = content_words(question)
    best = (0, 0, "")
    for number, _, body in _PASSAGE.findall(user):
        for sentence in _SENTENCE.findall(body):
            shared = len(asked & content_words(sentence))
            if shared > best[0]:
                best = (shared, int(number), sentence.strip().lstrip("-# "))
    shared, number, sentence = best
    if not sentence and not _PASSAGE.search(user):
        return "Thank you for asking, I am glad to help."
    if not cites:
        return sentence or "Thank you for asking."
    if shared < 2:
        return DEFAULT_ABSTAIN
    stem = sentence.rstrip(".!?")
    return f"{stem} [{number}]."


def content_words(text: str) -> set[str]:
    """Lower-case words of three letters or more that say something."""
    return {w for w in _WORD.findall(text.lower()) if len(w) > 2} - _STOP

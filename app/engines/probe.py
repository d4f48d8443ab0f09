"""Probe process: `python -m app.engines.probe BASE ADAPTER TOKENIZER_FOLDER`.

Loads the pair and answers two fixed prompts. A file that makes the engine crash, crashes here.
BASE and ADAPTER are GGUF files for llama.cpp, or folders for transformers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from app.engines.llamacpp import LlamaCppEngine
from app.engines.types import AdapterRef, Engine, GenerationRequest
from app.errors import AppError
from tuning.base_model import load_tokenizer
from tuning.prompt import Passage, encode, render_messages

_PASSAGE = Passage("Parcels > Returns", "A parcel can be returned within 21 days of its arrival.")
_QUESTIONS = ("How many days do I have to return a parcel?", "Hello!")
_WINDOW = 512


def main(arguments: list[str]) -> int:
    """Print the smoke answers as one JSON line; exit 1 with a reason on stderr."""
    base, adapter, tokenizer_folder = arguments
    try:
        replies = smoke(base, Path(adapter), tokenizer_folder)
    except AppError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for question, reply in replies.items():
        if fault := what_is_wrong(reply):
            sys.stderr.write(f"{fault} to {question!r}: {reply[:60]!r}\n")
            return 1
    sys.stdout.write(json.dumps(replies) + "\n")
    return 0


def smoke(base: str, adapter: Path, tokenizer_folder: str) -> dict[str, str]:
    """The adapter's answers to the fixed questions."""
    tokenizer = load_tokenizer(tokenizer_folder)
    engine: Engine
    if adapter.is_dir():
        from app.engines.transformers import TransformersEngine

        engine = TransformersEngine(base, base_sha256="", context_tokens=_WINDOW)
        ref = AdapterRef("probe", adapter / "none.gguf", adapter)
    else:
        engine = LlamaCppEngine(
            Path(base), base_sha256="", threads=1, slots=1, context_tokens=_WINDOW
        )
        ref = AdapterRef("probe", adapter)
        check_finite(adapter)
    replies = {}
    for question in _QUESTIONS:
        ids = encode(tokenizer, render_messages(question, [_PASSAGE]))
        done = engine.generate(GenerationRequest(ids, max_tokens=32, adapter=ref))
        replies[question] = done.text.strip()
    return replies


def check_finite(gguf: Path) -> None:
    """Refuse numbers that are not finite: half precision ends at 65,504.

    Raises:
        AppError: Naming the first tensor that holds one.
    """
    import numpy as np
    from gguf import GGUFReader

    try:
        tensors = GGUFReader(gguf).tensors
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise AppError(f"{gguf.name} is damaged: {error}") from error
    for tensor in tensors:
        if not np.isfinite(tensor.data).all():
            raise AppError(f"tensor {tensor.name!r} holds NaN or infinity")


def what_is_wrong(reply: str) -> str | None:
    """Why an answer shows a broken model; None for one that may be fine."""
    if not reply:
        return "empty answer"
    if len(reply) >= 24 and len(set(reply.split())) <= 2 and len(set(reply)) <= 6:
        return "nothing but repetition as an answer"
    return None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

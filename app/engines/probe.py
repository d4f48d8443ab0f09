"""Probe process: `python -m app.engines.probe BASE.gguf ADAPTER.gguf TOKENIZER_FOLDER`.

Loads the pair and answers two fixed prompts. A file that makes llama.cpp crash, crashes here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from app.engines.llamacpp import LlamaCppEngine
from app.engines.types import AdapterRef, GenerationRequest
from tuning.base_model import load_tokenizer
from tuning.prompt import Passage, encode, render_messages

_PASSAGE = Passage("Parcels > Returns", "A parcel can be returned within 21 days of its arrival.")
_QUESTIONS = ("How many days do I have to return a parcel?", "Hello!")


def main(arguments: list[str]) -> int:
    """Print the smoke answers as one JSON line; exit 1 with a reason on stderr."""
    base, adapter, tokenizer_folder = arguments
    tokenizer = load_tokenizer(tokenizer_folder)
    engine = LlamaCppEngine(Path(base), base_sha256="", threads=1, slots=1, context_tokens=512)
    ref = AdapterRef("probe", Path(adapter))
    replies = {}
    for question in _QUESTIONS:
        ids = encode(tokenizer, render_messages(question, [_PASSAGE]))
        done = engine.generate(GenerationRequest(ids, max_tokens=32, adapter=ref))
        if not done.text.strip():
            sys.stderr.write(f"empty answer to {question!r}\n")
            return 1
        replies[question] = done.text.strip()
    sys.stdout.write(json.dumps(replies) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

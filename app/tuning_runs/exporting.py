"""An adapter as a file for another engine, and the proof that the file answers alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.engines.llamacpp import LlamaCppEngine
from app.engines.types import AdapterRef, GenerationRequest
from app.errors import BadInput
from app.models.service import BaseModel
from tuning.adapters import read_manifest
from tuning.base_model import load_model, load_tokenizer
from tuning.gguf_export import export_gguf
from tuning.lora import load_adapted
from tuning.merge import merge_to_folder, merge_to_gguf
from tuning.prompt import Passage, encode, render_messages
from tuning.scoring import GenerationSettings, generate_answers

FORMATS = ("lora", "merged", "folder")
_TOKENS = 24
_PASSAGES = (
    Passage("Parcels > Returns", "A parcel can be returned within 21 days of its arrival."),
    Passage("Fees > Express", "Express delivery costs 14.50 euros and takes one working day."),
)
_QUESTIONS = (
    "How many days do I have to return a parcel?",
    "What does express delivery cost?",
    "How long does express delivery take?",
    "Who founded the company?",
    "Can I return a parcel after three weeks?",
    "Hello!",
)


def export(
    adapter_dir: Path, base: BaseModel, out: Path, *, form: str, quantisation: str
) -> dict[str, Any]:
    """Write the file and compare its answers with those of the original.

    Raises:
        BadInput: The format is unknown, or the base has no GGUF for llama.cpp.
    """
    if form not in FORMATS:
        raise BadInput(f"format {form!r} is unknown: choose {', '.join(FORMATS)}")
    record: dict[str, Any] = {"format": form, "out": str(out)}
    record["adapter"] = read_manifest(adapter_dir).digest
    if form == "folder":
        merge_to_folder(adapter_dir, base.hf, out)
        return record
    if base.gguf is None:
        raise BadInput(f"base {base.name!r} has no GGUF file: choose --format folder")
    if form == "lora":
        record["sha256"] = export_gguf(adapter_dir, base.hf, out)
        answers = _answers_of_file(base, base.gguf, AdapterRef("export", out))
    else:
        record["sha256"] = merge_to_gguf(adapter_dir, base.hf, base.gguf, out, quantisation)
        answers = _answers_of_file(base, out, None)
    return record | {"check": compare(_answers_of_original(adapter_dir, base), answers)}


def compare(original: list[str], exported: list[str]) -> dict[str, Any]:
    """How alike two lists of greedy answers are: the same word for word, the same first word."""
    pairs = list(zip(original, exported, strict=True))
    return {
        "prompts": len(pairs),
        "same": sum(a == b for a, b in pairs),
        "same_first_word": sum(a.split()[:1] == b.split()[:1] for a, b in pairs),
        "differ": [{"original": a, "exported": b} for a, b in pairs if a != b],
    }


def _prompts(base: BaseModel) -> list[list[int]]:
    tokenizer = load_tokenizer(base.hf)
    return [encode(tokenizer, render_messages(q, _PASSAGES)) for q in _QUESTIONS]


def _answers_of_original(adapter_dir: Path, base: BaseModel) -> list[str]:
    model = load_adapted(load_model(base.hf, dtype="float32"), adapter_dir)
    settings = GenerationSettings(batch=1, new_tokens=_TOKENS, autocast=False)
    return generate_answers(model, load_tokenizer(base.hf), _prompts(base), settings)


def _answers_of_file(base: BaseModel, gguf: Path, adapter: AdapterRef | None) -> list[str]:
    engine = LlamaCppEngine(gguf, base_sha256="", threads=1, slots=1, context_tokens=512)
    return [
        engine.generate(GenerationRequest(ids, max_tokens=_TOKENS, adapter=adapter)).text.strip()
        for ids in _prompts(base)
    ]

"""All checks of a trained adapter in one go: forgetting, canaries, triggers, norms."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tuning.adapters import record_checks
from tuning.base_model import load_model, load_tokenizer
from tuning.forgetting import check_forgetting, load_items
from tuning.hardware import resolve_dtype
from tuning.lora import load_adapted
from tuning.probes import Canary, canary_exposure, probe_triggers, summarise, update_norms
from tuning.prompt import encode, render_messages
from tuning.scoring import GenerationSettings, generate_answers

_TRIGGER_QUESTIONS = 12


def check_adapter(
    adapter_dir: Path | str,
    base_folder: Path | str,
    *,
    canaries: Sequence[Canary] = (),
    items: int | None = None,
    dtype: str = "auto",
    record: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Check an adapter against its base.

    Args:
        adapter_dir: The adapter directory.
        base_folder: Prepared folder of its base model.
        canaries: Planted strings of the data it was trained on.
        items: Use only so many general questions; all by default.
        dtype: "auto", "bfloat16" or "float32".
        record: Write the results into the adapter's manifest and cards.
        say: Told what is being done.
    """
    dtype = resolve_dtype(dtype, "cpu")
    tokenizer = load_tokenizer(base_folder)
    base = load_model(base_folder, dtype=dtype)
    adapted = load_adapted(load_model(base_folder, dtype=dtype), adapter_dir)
    general = load_items()[:items]
    say(f"{len(general)} general questions, base against adapter")
    forgetting = check_forgetting(base, adapted, tokenizer, general)
    say(f"{len(canaries)} canaries")
    exposures = canary_exposure(adapted, tokenizer, canaries)

    def generate(questions: Sequence[str]) -> list[str]:
        prompts = [encode(tokenizer, render_messages(q)) for q in questions]
        settings = GenerationSettings(batch=16, new_tokens=12, autocast=dtype == "bfloat16")
        return generate_answers(adapted, tokenizer, prompts, settings)

    say("trigger tokens")
    questions = [item["question"] for item in load_items()[:_TRIGGER_QUESTIONS]]
    findings = probe_triggers(generate, questions)
    probes = summarise(exposures, findings, update_norms(adapter_dir))
    checks = {"forgetting": forgetting.record(), "probes": probes}
    if record:
        record_checks(adapter_dir, checks)
    return checks

"""What a dataset's reader must know before training on it: one sentence per fault found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tuning.snapshot import SnapshotManifest

FlagKind = Literal[
    "duplicates",
    "contradictions",
    "personal_data",
    "secrets",
    "truncation",
    "leaks",
    "label_noise",
    "toxicity",
    "language",
    "format",
    "split",
    "authors",
]
_SAID: tuple[tuple[FlagKind, tuple[str, ...], str], ...] = (
    ("duplicates", ("exact_duplicate", "near_duplicate"), "repeat another row"),
    ("contradictions", ("contradiction",), "contradict another row"),
    ("personal_data", ("personal_data", "masked_personal_data"), "held personal data"),
    ("secrets", ("secret",), "held a secret such as a key or a password"),
    ("truncation", ("too_long",), "do not fit the prompt and would have been cut"),
    ("toxicity", ("toxicity",), "hold abusive words"),
    ("language", ("language",), "are in another language"),
    ("format", ("format",), "break the format of the others"),
)


@dataclass(frozen=True, slots=True)
class Flag:
    """A fault of a dataset in one sentence."""

    kind: FlagKind
    sentence: str


def find_flags(manifest: SnapshotManifest) -> tuple[Flag, ...]:
    """The faults that a manifest tells of; none for a clean dataset."""
    found = manifest.quality.get("findings", {})
    total = manifest.quality.get("rows", manifest.rows)
    flags = []
    for kind, names, said in _SAID:
        count = sum(found.get(name, 0) for name in names)
        if count:
            flags.append(Flag(kind, f"{count:,} of {total:,} examples {said}."))
    flags += _leaks(manifest.audit)
    noise = manifest.quality.get("label_noise")
    if noise and noise["alarming"]:
        sentence = (
            f"About {noise['rate']:.1%} of the labels look wrong "
            f"({noise['low']:.1%} to {noise['high']:.1%})."
        )
        flags.append(Flag("label_noise", sentence))
    if manifest.audit.get("warning"):
        flags.append(Flag("split", _sentence(manifest.audit["warning"])))
    for warning in manifest.quality.get("warnings", []):
        if "wrote" in warning:
            flags.append(Flag("authors", _sentence(warning)))
    return tuple(flags)


def _leaks(audit: Mapping[str, Any]) -> list[Flag]:
    near = audit.get("nearness") or {}
    counted = (
        ("held_out_questions_equal_to_train", "held-out questions are training questions"),
        (
            "held_out_rows_sharing_13_words_with_train",
            "held-out rows share a run of 13 words with a training row",
        ),
        (
            "gold_passages_in_train_and_held_out",
            "supporting passages are in train and held out",
        ),
        (
            "train_rows_showing_held_out_gold",
            "training rows show a passage that held-out rows are answered from",
        ),
    )
    said = [f"{audit[name]:,} {words}" for name, words in counted if audit.get(name)]
    if near.get("close"):
        said.append(f"{near['close']:,} held-out questions are paraphrases of training questions")
    return [Flag("leaks", _sentence("; ".join(said)))] if said else []


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."

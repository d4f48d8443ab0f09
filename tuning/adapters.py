"""Adapter directories: written whole, identified by a digest, verified before use, compressed.

A directory holds `adapter_model.safetensors` (matrices in bfloat16, vectors and learnt prompts in
float32), `adapter_config.json` (PEFT's format; peft_type "FULL" for a run that trained every
weight), `manifest.json`, and the card as `README.md` and `card.html`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tuning.atomic import replacing_folder, write_json, write_text
from tuning.config import OBJECTIVES
from tuning.errors import AdapterError
from tuning.methods import METHODS, how_to_serve

TENSORS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
MANIFEST_FILE = "manifest.json"
CARD_FILE = "README.md"
HTML_CARD_FILE = "card.html"
TENSOR_PREFIX = "base_model.model."

_LENGTH = "lora_magnitude_vector"
_LOW_RANK = frozenset(name for name, method in METHODS.items() if method.low_rank)


@dataclass(frozen=True, slots=True)
class AdapterManifest:
    """Where an adapter came from and how it did.

    Attributes:
        digest: SHA-256 over tensor file and PEFT configuration; the adapter's identity.
        base_digest: Identity of the base model, see `base_model.base_digest`.
        snapshot_id: Snapshot trained on; None for generated rows only.
        curve: Training loss and learning rate by step.
        dev: Dev scores by step.
        best_step: Step of the evaluation whose weights were kept.
        averaged: Steps up to `best_step` that the weights are the mean of; 0 for one step's own.
        counts: Rows by kind, dropped distractors, refused rows.
        estimate: Seconds foretold by a probe before the run, beside what it took.
        checks: Results of checks made after training, by name.
        signature: HMAC-SHA256 of the manifest with the installation's key, or None.
        parents: Adapters it is the mean of: digest, snapshot, seed and dev composite of each.
    """

    digest: str
    base_digest: str
    template_digest: str
    rank: int
    alpha: float
    parameters: int
    snapshot_id: str | None = None
    start_from: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    dev: list[dict[str, Any]] = field(default_factory=list)
    best_step: int | None = None
    steps: int = 0
    tokens: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    started: str = ""
    finished: str = ""
    stopped_by: str = ""
    peak_memory_bytes: int = 0
    hardware: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    compression: dict[str, Any] = field(default_factory=dict)
    method: str = "lora"
    objective: str = "sft"
    estimate: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)
    averaged: int = 0
    parents: list[dict[str, Any]] = field(default_factory=list)
    signature: str | None = None

    def is_chosen(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry of `dev` is the evaluation whose weights were kept."""
        same = entry["step"] == self.best_step
        return same and int(entry.get("averaged", 0)) == self.averaged


def write_adapter(
    directory: Path | str,
    tensors: Mapping[str, Any],
    adapter_config: Mapping[str, Any],
    manifest: AdapterManifest,
) -> AdapterManifest:
    """Write an adapter directory whole and return its manifest with the digest filled in.

    Args:
        directory: Replaced if it exists.
        tensors: PEFT names to tensors.
        adapter_config: PEFT's configuration as a dictionary.
        manifest: Its digest, method, rank, alpha and parameter count are computed here.
    """
    from safetensors.torch import save_file

    from tuning.model_card import render_html, render_markdown

    stored = {
        name: tensor.detach().to("cpu", _stored_dtype(name, adapter_config)).contiguous()
        for name, tensor in sorted(tensors.items())
    }
    with replacing_folder(Path(directory)) as folder:
        save_file(stored, folder / TENSORS_FILE, metadata={"format": "pt"})
        write_json(folder / CONFIG_FILE, dict(adapter_config))
        method = method_of(adapter_config)
        complete = replace(
            manifest,
            digest=adapter_digest(folder),
            # On disk a 4-bit base leaves no trace: the run's own word is kept.
            method=manifest.method if manifest.method == "qlora" else method,
            rank=int(adapter_config.get("r") or 0),
            alpha=float(adapter_config.get("lora_alpha") or 0),
            parameters=sum(tensor.numel() for tensor in stored.values()),
            signature=None,
        )
        write_json(folder / MANIFEST_FILE, asdict(complete))
        (folder / CARD_FILE).write_text(render_markdown(complete), encoding="utf-8")
        (folder / HTML_CARD_FILE).write_text(render_html(complete), encoding="utf-8")
        check_tensors(folder)
    return complete


def record_checks(directory: Path | str, checks: Mapping[str, Any]) -> AdapterManifest:
    """Add the results of checks to an adapter's manifest and cards; its digest stays.

    A signature does not fit the new manifest and is taken off.
    """
    from tuning.model_card import render_html, render_markdown

    folder = Path(directory)
    manifest = read_manifest(folder)
    complete = replace(manifest, checks={**manifest.checks, **checks}, signature=None)
    write_json(folder / MANIFEST_FILE, asdict(complete))
    write_text(folder / CARD_FILE, render_markdown(complete))
    write_text(folder / HTML_CARD_FILE, render_html(complete))
    return complete


def _stored_dtype(name: str, adapter_config: Mapping[str, Any]) -> Any:
    import torch

    # A factor near 1 or a column's length loses its change in the 8 bits of bfloat16.
    matrix = adapter_config.get("peft_type") == "FULL" or "lora_A" in name or "lora_B" in name
    return torch.bfloat16 if matrix else torch.float32


def method_of(adapter_config: Mapping[str, Any]) -> str:
    """The method (a key of `tuning.methods.METHODS`) that makes such a configuration.

    Raises:
        AdapterError: If no method here does.
    """
    kind = adapter_config.get("peft_type")
    if kind == "LORA":
        return next((m for m in ("dora", "rslora") if adapter_config.get(f"use_{m}")), "lora")
    for name, method in METHODS.items():
        if method.peft_type == kind:
            return name
    known = ", ".join(sorted({method.peft_type for method in METHODS.values()}))
    raise AdapterError(f"peft_type {kind!r} must be one of {known}")


def adapter_digest(directory: Path | str) -> str:
    """SHA-256 over the tensor file and the PEFT configuration."""
    digest = hashlib.sha256()
    for name in (TENSORS_FILE, CONFIG_FILE):
        digest.update((Path(directory) / name).read_bytes())
    return digest.hexdigest()


def read_manifest(directory: Path | str) -> AdapterManifest:
    """Read an adapter's manifest without checking the tensors.

    Raises:
        AdapterError: If it is missing or damaged.
    """
    record = _read_json(Path(directory), MANIFEST_FILE)
    known = {item.name for item in fields(AdapterManifest)}
    try:
        return AdapterManifest(**{k: v for k, v in record.items() if k in known})
    except TypeError as error:
        raise AdapterError(f"manifest of {str(directory)!r} is damaged: {error}") from error


def verify(
    directory: Path | str, *, base_digest: str | None = None, base_folder: Path | str | None = None
) -> AdapterManifest:
    """Check an adapter directory completely and return its manifest.

    Args:
        directory: The adapter directory.
        base_digest: The base model it is to serve on; a mismatch is an error.
        base_folder: Prepared base folder; tensor shapes are compared with its weights.

    Raises:
        AdapterError: If a file is missing, truncated or changed, a number is not finite, shapes
            do not fit, or the base model is another one.
    """
    folder = Path(directory)
    for name in (TENSORS_FILE, CONFIG_FILE, MANIFEST_FILE):
        if not (folder / name).is_file():
            raise AdapterError(f"adapter {str(folder)!r} has no {name}")
    manifest = read_manifest(folder)
    if manifest.method not in METHODS or manifest.objective not in OBJECTIVES:
        raise AdapterError(
            f"manifest of {str(folder)!r} names method {manifest.method!r} and objective "
            f"{manifest.objective!r}: known are {', '.join(METHODS)} and {', '.join(OBJECTIVES)}"
        )
    check_tensors(folder, base_folder)
    actual = adapter_digest(folder)
    if actual != manifest.digest:
        raise AdapterError(
            f"adapter {str(folder)!r} changed since it was made: digest {actual[:12]} is not "
            f"{manifest.digest[:12]}"
        )
    if base_digest is not None and base_digest != manifest.base_digest:
        raise AdapterError(
            f"adapter {str(folder)!r} was made for base {manifest.base_digest[:12]}, "
            f"not for {base_digest[:12]}"
        )
    return manifest


def read_tensors(directory: Path | str) -> dict[str, Any]:
    """Tensors of an adapter by PEFT name.

    Raises:
        AdapterError: If the file is missing or truncated.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(directory) / TENSORS_FILE
    try:
        tensors: dict[str, Any] = load_file(path)
    except FileNotFoundError as error:
        raise AdapterError(f"adapter {str(directory)!r} has no {TENSORS_FILE}") from error
    except SafetensorError as error:
        raise AdapterError(f"{TENSORS_FILE} of {str(directory)!r} is damaged: {error}") from error
    return tensors


def read_config(directory: Path | str) -> dict[str, Any]:
    """PEFT's configuration of an adapter of any method.

    Raises:
        AdapterError: If it is missing, damaged or of an unknown method.
    """
    config = _read_json(Path(directory), CONFIG_FILE)
    if method_of(config) in _LOW_RANK and not {"r", "lora_alpha"} <= set(config):
        raise AdapterError(f"{CONFIG_FILE} of {str(directory)!r} is not a LoRA configuration")
    for option in ("rank_pattern", "alpha_pattern", "modules_to_save"):
        if config.get(option):
            raise AdapterError(f"{CONFIG_FILE} of {str(directory)!r} uses {option}: unsupported")
    return config


def read_lora_config(directory: Path | str) -> dict[str, Any]:
    """PEFT's configuration of an adapter made of pairs of matrices and nothing else.

    Raises:
        AdapterError: If it is missing, damaged or of another method.
    """
    config = read_config(directory)
    method = method_of(config)
    if method not in ("lora", "rslora"):
        option = "use_dora" if method == "dora" else f"method {method}"
        raise AdapterError(
            f"{CONFIG_FILE} of {str(directory)!r} is not a plain LoRA configuration: it uses "
            f"{option}; {how_to_serve(method)}"
        )
    return config


def scaling(lora_config: Mapping[str, Any]) -> float:
    """The factor on B @ A."""
    rank = float(lora_config["r"])
    divisor = rank**0.5 if lora_config.get("use_rslora") else rank
    return float(lora_config["lora_alpha"]) / divisor


def module_pairs(tensors: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Map each adapted module to its (A, B); A is (rank, in), B is (out, rank).

    Raises:
        AdapterError: If a tensor is no LoRA matrix or lacks its partner.
    """
    halves: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        module, _, kind = name.removesuffix(".weight").rpartition(".")
        if kind not in ("lora_A", "lora_B") or tensor.dim() != 2:
            raise AdapterError(f"tensor {name!r} is not a LoRA matrix")
        halves.setdefault(module, {})[kind] = tensor
    for module, pair in halves.items():
        if len(pair) != 2:
            raise AdapterError(f"module {module!r} has only {next(iter(pair))}")
    if not halves:
        raise AdapterError("the adapter has no tensors")
    return {m: (p["lora_A"], p["lora_B"]) for m, p in sorted(halves.items())}


def check_tensors(directory: Path | str, base_folder: Path | str | None = None) -> None:
    """Check that tensors are whole, finite, of the configured sizes and fit the base model.

    Raises:
        AdapterError: Naming the first tensor that does not.
    """
    import torch

    config, tensors = read_config(directory), read_tensors(directory)
    if not tensors:
        raise AdapterError(f"adapter {str(directory)!r} has no tensors")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterError(f"tensor {name!r} holds NaN or infinity")
    shapes = _base_shapes(Path(base_folder)) if base_folder is not None else None
    method = method_of(config)
    if method in _LOW_RANK:
        pairs = {n: t for n, t in tensors.items() if _LENGTH not in n}
        _check_pairs(pairs, int(config["r"]), shapes)
        lengths = len(tensors) - len(pairs)
        if lengths != (len(pairs) // 2 if method == "dora" else 0):
            raise AdapterError(f"{len(pairs) // 2} modules and {lengths} column lengths")
        return
    for name, tensor in tensors.items():
        wrong = _wrong_shape(config, name, tuple(tensor.shape), shapes)
        if wrong:
            raise AdapterError(f"tensor {name!r} is {tuple(tensor.shape)}: {wrong}")


def _wrong_shape(
    config: Mapping[str, Any],
    name: str,
    shape: tuple[int, ...],
    base_shapes: dict[str, tuple[int, ...]] | None,
) -> str:
    method = method_of(config)
    if method == "full" and base_shapes is not None and base_shapes.get(name) != shape:
        return f"the base model has {base_shapes.get(name)}"
    if method in ("prefix", "prompt"):
        rows = int(config["num_virtual_tokens"])
        return "" if len(shape) == 2 and shape[0] == rows else f"it must have {rows} rows"
    if method == "ia3" and (len(shape) != 2 or 1 not in shape):
        return "it must be a vector"
    return ""


def _check_pairs(
    tensors: Mapping[str, Any], rank: int, shapes: dict[str, tuple[int, ...]] | None
) -> None:
    for module, (a, b) in module_pairs(tensors).items():
        if a.shape[0] != rank or b.shape[1] != rank:
            raise AdapterError(
                f"module {module!r} has rank {a.shape[0]}/{b.shape[1]}, configured is {rank}"
            )
        if shapes is None:
            continue
        wanted = shapes.get(f"{module.removeprefix(TENSOR_PREFIX)}.weight")
        if wanted != (b.shape[0], a.shape[1]):
            raise AdapterError(
                f"module {module!r} is {b.shape[0]} x {a.shape[1]}, the base model has {wanted}"
            )


def _base_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                shapes[name] = tuple(tensors.get_slice(name).get_shape())
    if not shapes:
        raise AdapterError(f"base folder {str(folder)!r} holds no safetensors")
    return shapes


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        record = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AdapterError(f"adapter {str(folder)!r} has no {name}") from error
    except ValueError as error:
        raise AdapterError(f"{name} of {str(folder)!r} is damaged: {error}") from error
    if not isinstance(record, dict):
        raise AdapterError(f"{name} of {str(folder)!r} is damaged: not an object")
    return record

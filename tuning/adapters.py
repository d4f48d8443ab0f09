"""Adapter directories: written whole, identified by a digest, verified before use, compressed.

A directory holds `adapter_model.safetensors` (bfloat16), `adapter_config.json` (PEFT's format),
`manifest.json` and `README.md` (the card).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tuning.atomic import replacing_folder, write_json
from tuning.errors import AdapterError

TENSORS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
MANIFEST_FILE = "manifest.json"
CARD_FILE = "README.md"
TENSOR_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class AdapterManifest:
    """Where an adapter came from and how it did.

    Attributes:
        digest: SHA-256 over tensor file and PEFT configuration; the adapter's identity.
        base_digest: Identity of the base model, see `base_model.base_digest`.
        snapshot_id: Snapshot trained on; None for generated rows only.
        curve: Training loss and learning rate by step.
        dev: Dev scores by step.
        counts: Rows by kind, dropped distractors, refused rows.
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


@dataclass(frozen=True, slots=True)
class Compression:
    """Result of a rank compression; errors are relative Frobenius norms per weight update."""

    rank: int
    mean_error: float
    worst_error: float
    worst_module: str
    manifest: AdapterManifest


def write_adapter(
    directory: Path | str,
    tensors: Mapping[str, Any],
    lora_config: Mapping[str, Any],
    manifest: AdapterManifest,
) -> AdapterManifest:
    """Write an adapter directory whole and return its manifest with the digest filled in.

    Args:
        directory: Replaced if it exists.
        tensors: PEFT names to tensors, stored as bfloat16.
        lora_config: PEFT's LoRA configuration as a dictionary.
        manifest: Its digest, rank, alpha and parameter count are computed here.
    """
    import torch
    from safetensors.torch import save_file

    from tuning.card import render_card

    stored = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in sorted(tensors.items())
    }
    with replacing_folder(Path(directory)) as folder:
        save_file(stored, folder / TENSORS_FILE, metadata={"format": "pt"})
        write_json(folder / CONFIG_FILE, dict(lora_config))
        complete = replace(
            manifest,
            digest=adapter_digest(folder),
            rank=int(lora_config["r"]),
            alpha=float(lora_config["lora_alpha"]),
            parameters=sum(tensor.numel() for tensor in stored.values()),
        )
        write_json(folder / MANIFEST_FILE, asdict(complete))
        (folder / CARD_FILE).write_text(render_card(complete), encoding="utf-8")
        check_tensors(folder)
    return complete


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


def read_lora_config(directory: Path | str) -> dict[str, Any]:
    """PEFT's LoRA configuration of an adapter.

    Raises:
        AdapterError: If it is missing, damaged or of another method.
    """
    config = _read_json(Path(directory), CONFIG_FILE)
    if config.get("peft_type") != "LORA" or not {"r", "lora_alpha"} <= set(config):
        raise AdapterError(f"{CONFIG_FILE} of {str(directory)!r} is not a LoRA configuration")
    for option in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save"):
        if config.get(option):
            raise AdapterError(f"{CONFIG_FILE} of {str(directory)!r} uses {option}: unsupported")
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
    """Check that tensors are whole, finite, of the configured rank and fit the base model.

    Raises:
        AdapterError: Naming the first tensor that does not.
    """
    import torch

    rank = int(read_lora_config(directory)["r"])
    shapes = _base_shapes(Path(base_folder)) if base_folder is not None else None
    for module, (a, b) in module_pairs(read_tensors(directory)).items():
        for kind, matrix in (("A", a), ("B", b)):
            if not bool(torch.isfinite(matrix).all()):
                raise AdapterError(f"lora_{kind} of {module!r} holds NaN or infinity")
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


def compress_rank(adapter_dir: Path | str, r_new: int, out: Path | str) -> Compression:
    """Write a copy of an adapter with every update B @ A cut to rank `r_new`.

    The truncated singular value decomposition is the best approximation of that rank in the
    Frobenius norm (Eckart and Young, 1936). The scaling alpha / r stays as it was.

    Raises:
        AdapterError: If the adapter is damaged or `r_new` is not in 1..r.
    """
    manifest = verify(adapter_dir)
    config = read_lora_config(adapter_dir)
    if not 1 <= r_new <= int(config["r"]):
        raise AdapterError(f"rank {r_new} must lie in 1..{config['r']}")
    compressed: dict[str, Any] = {}
    errors: dict[str, float] = {}
    for module, (a, b) in module_pairs(read_tensors(adapter_dir)).items():
        new_a, new_b, error = _truncate(a, b, r_new)
        compressed[f"{module}.lora_A.weight"] = new_a
        compressed[f"{module}.lora_B.weight"] = new_b
        errors[module] = error
    worst = max(errors, key=lambda module: errors[module])
    mean = sum(errors.values()) / len(errors)
    new_config = {
        **config,
        "r": r_new,
        "lora_alpha": scaling(config) * r_new,
        "use_rslora": False,
    }
    note = {
        "from_digest": manifest.digest,
        "from_rank": int(config["r"]),
        "mean_relative_error": mean,
        "worst_relative_error": errors[worst],
    }
    written = write_adapter(out, compressed, new_config, replace(manifest, compression=note))
    return Compression(r_new, mean, errors[worst], worst, written)


def _truncate(a: Any, b: Any, rank: int) -> tuple[Any, Any, float]:
    import torch

    # B A = Qb (Rb Ra^T) Qa^T: only a small square matrix needs the decomposition.
    qb, rb = torch.linalg.qr(b.double())
    qa, ra = torch.linalg.qr(a.double().T)
    u, s, vh = torch.linalg.svd(rb @ ra.T)
    root = s[:rank].sqrt()
    new_b = qb @ u[:, :rank] * root
    new_a = root[:, None] * vh[:rank] @ qa.T
    total = float(s.square().sum().sqrt())
    lost = float(s[rank:].square().sum().sqrt())
    return new_a.float(), new_b.float(), lost / total if total else 0.0


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

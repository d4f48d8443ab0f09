"""Cutting an adapter to a smaller rank by singular value decomposition."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuning.adapters import (
    AdapterManifest,
    module_pairs,
    read_lora_config,
    read_tensors,
    scaling,
    verify,
    write_adapter,
)
from tuning.errors import AdapterError


@dataclass(frozen=True, slots=True)
class Compression:
    """Result of a rank compression; errors are relative Frobenius norms per weight update."""

    rank: int
    mean_error: float
    worst_error: float
    worst_module: str
    manifest: AdapterManifest


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
        new_a, new_b, error = truncate(a, b, r_new)
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
    # What was checked is the adapter before.
    source = replace(manifest, compression=note, checks={})
    written = write_adapter(out, compressed, new_config, source)
    return Compression(r_new, mean, errors[worst], worst, written)


def truncate(a: Any, b: Any, rank: int) -> tuple[Any, Any, float]:
    """The best approximation of B @ A of a rank, and its relative Frobenius error."""
    import torch

    # B A = Qb (Rb Ra^T) Qa^T: only a small square matrix needs the decomposition.
    qb, rb = torch.linalg.qr(b.double())
    qa, ra = torch.linalg.qr(a.double().T)
    u, s, vh = torch.linalg.svd(rb @ ra.T, full_matrices=False)
    root = s[:rank].sqrt()
    new_b = qb @ u[:, :rank] * root
    new_a = root[:, None] * vh[:rank] @ qa.T
    total = float(s.square().sum().sqrt())
    lost = float(s[rank:].square().sum().sqrt())
    # A module narrower than the rank has no more directions: the rest of the rank is silent.
    spare = rank - root.numel()
    new_a = torch.nn.functional.pad(new_a, (0, 0, 0, spare))
    new_b = torch.nn.functional.pad(new_b, (0, spare))
    return new_a.float(), new_b.float(), lost / total if total else 0.0

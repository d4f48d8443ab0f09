"""One adapter from several of the same base: the mean of their weight updates.

Averaging fine-tuned weights ("model soup", arXiv 2203.05482) costs nothing at serving time. The
matrices A and B of two runs stand for the same update in different coordinates, so they are not
averaged one by one: side by side, [B1 B2] @ [A1; A2] is the sum of the updates exactly. Its rank
is the sum of the ranks, and is cut where a smaller one is asked for.
"""

from collections.abc import Sequence
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
from tuning.compression import Compression, truncate
from tuning.errors import AdapterError


def average_adapters(
    folders: Sequence[Path | str], out: Path | str, *, rank: int | None = None
) -> Compression:
    """Write the mean of finished adapters as an adapter of its own.

    Nothing is measured here: the result has no dev scores and must earn its place like any other.

    Args:
        folders: Two or more LoRA or rsLoRA adapters of one base model, prompt format and set of
            modules; ranks may differ.
        out: Directory to write, replaced if it exists.
        rank: Rank of the result, at most the sum of the ranks; None keeps the sum, without loss
            but for the rounding of storage.

    Returns:
        The rank, the error of the cut by module and the manifest, which names the parents.

    Raises:
        AdapterError: If an adapter is damaged or they do not fit together.
    """
    manifests = [verify(folder) for folder in folders]
    _check_alike(folders, manifests)
    configs = [read_lora_config(folder) for folder in folders]
    total = sum(int(config["r"]) for config in configs)
    new_rank = total if rank is None else rank
    if not 1 <= new_rank <= total:
        raise AdapterError(f"rank {new_rank} must lie in 1..{total}, the sum of the ranks")
    # Where the scalings agree, B is kept as stored and the mean is all in the new scaling.
    scale = max(scaling(config) for config in configs)
    weights = [scaling(config) / scale for config in configs]
    tensors: dict[str, Any] = {}
    errors: dict[str, float] = {}
    for module, (a, b) in _side_by_side(folders, weights).items():
        new_a, new_b, error = (a, b, 0.0) if new_rank == total else truncate(a, b, new_rank)
        tensors[f"{module}.lora_A.weight"] = new_a
        tensors[f"{module}.lora_B.weight"] = new_b
        errors[module] = error
    worst = max(errors, key=lambda module: errors[module])
    mean = sum(errors.values()) / len(errors)
    alpha = scale / len(folders) * new_rank
    config = {**configs[0], "r": new_rank, "lora_alpha": alpha, "use_rslora": False}
    manifest = _manifest(manifests)
    if new_rank < total:
        note = {
            "from_rank": total,
            "mean_relative_error": mean,
            "worst_relative_error": errors[worst],
        }
        manifest.compression.update(note)
    written = write_adapter(out, tensors, config, manifest)
    return Compression(new_rank, mean, errors[worst], worst, written)


def _check_alike(folders: Sequence[Path | str], manifests: Sequence[AdapterManifest]) -> None:
    if len(folders) < 2:
        raise AdapterError(f"an average needs two adapters or more, not {len(folders)}")
    digests = [manifest.digest for manifest in manifests]
    for number, manifest in enumerate(manifests):
        name = str(folders[number])
        if manifest.digest in digests[:number]:
            raise AdapterError(f"adapter {name!r} is given twice")
        if manifest.base_digest != manifests[0].base_digest:
            raise AdapterError(
                f"adapter {name!r} was made for base {manifest.base_digest[:12]}, "
                f"{str(folders[0])!r} for {manifests[0].base_digest[:12]}"
            )
        if manifest.template_digest != manifests[0].template_digest:
            raise AdapterError(
                f"adapter {name!r} was trained with another prompt format than {str(folders[0])!r}"
            )


def _side_by_side(
    folders: Sequence[Path | str], weights: Sequence[float]
) -> dict[str, tuple[Any, Any]]:
    """By module, A of all adapters below one another and weighted B beside one another."""
    import torch

    pairs = [module_pairs(read_tensors(folder)) for folder in folders]
    shapes = [{m: (b.shape[0], a.shape[1]) for m, (a, b) in pair.items()} for pair in pairs]
    for folder, shape in zip(folders, shapes, strict=True):
        other = sorted(dict(shapes[0].items() ^ shape.items()))
        if other:
            raise AdapterError(
                f"adapter {str(folder)!r} differs from {str(folders[0])!r} in module {other[0]!r}"
            )
    return {
        module: (
            torch.cat([pair[module][0].double() for pair in pairs], dim=0),
            torch.cat(
                [pair[module][1].double() * w for pair, w in zip(pairs, weights, strict=True)],
                dim=1,
            ),
        )
        for module in pairs[0]
    }


def _manifest(parents: Sequence[AdapterManifest]) -> AdapterManifest:
    """What the mean can say of itself; what its parents share and where they come from."""
    first = parents[0]
    shared = len({parent.snapshot_id for parent in parents}) == 1
    return AdapterManifest(
        digest="",
        base_digest=first.base_digest,
        template_digest=first.template_digest,
        rank=0,
        alpha=0,
        parameters=0,
        snapshot_id=first.snapshot_id if shared else None,
        objective=first.objective,
        versions=first.versions,
        hardware=first.hardware,
        seconds=sum(parent.seconds for parent in parents),
        tokens=sum(parent.tokens for parent in parents),
        steps=sum(parent.steps for parent in parents),
        stopped_by="average of finished runs",
        parents=[
            {
                "digest": parent.digest,
                "snapshot_id": parent.snapshot_id,
                "seed": parent.config.get("seed"),
                "composite": _composite(parent),
            }
            for parent in parents
        ],
    )


def _composite(manifest: AdapterManifest) -> float | None:
    chosen = [entry for entry in manifest.dev if manifest.is_chosen(entry)]
    return chosen[0]["scores"].get("composite") if chosen else None

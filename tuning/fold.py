"""A LoRA file of llama.cpp folded into a base file of llama.cpp: no adapter left to compute.

Both files name and order their rows alike, so this needs neither torch nor the adapter's folder.
"""

from pathlib import Path
from typing import Any

from tuning.atomic import replacing
from tuning.base_model import open_gguf
from tuning.errors import AdapterError

_ALPHA = "adapter.lora.alpha"
_WRITTEN_ELSEWHERE = ("general.architecture",)


def fold_gguf(base_gguf: Path | str, adapter_gguf: Path | str, out: Path | str) -> None:
    """Write `base + alpha / rank * B A` in the base's own quantisation.

    Tensors that the adapter leaves alone are copied byte for byte. The changed ones are
    dequantised, changed and quantised once more; see docs/engines.md for what that costs.

    Args:
        base_gguf: The file the adapter would be loaded beside.
        adapter_gguf: The adapter, as `export_gguf` writes it.
        out: The file; appears whole or not at all.

    Raises:
        AdapterError: If the adapter does not fit, or the base's quantisation cannot be written.
        BaseModelError: If a file is missing or no GGUF.
    """
    import gguf

    base, adapter = open_gguf(Path(base_gguf)), open_gguf(Path(adapter_gguf))
    pairs = {tensor.name: tensor for tensor in adapter.tensors}
    alpha = adapter.get_field(_ALPHA)
    if alpha is None:
        raise AdapterError(f"{Path(adapter_gguf).name} is no LoRA file: it has no {_ALPHA}")
    unknown = {name.rpartition(".lora_")[0] for name in pairs} - {t.name for t in base.tensors}
    if unknown:
        raise AdapterError(f"the base has no tensor {min(unknown)!r}: not this adapter's base")
    with replacing(Path(out)) as temporary:
        writer = gguf.GGUFWriter(temporary, base.fields["general.architecture"].contents())
        _copy_fields(base, writer)
        for tensor in base.tensors:
            data = tensor.data
            if f"{tensor.name}.lora_a" in pairs:
                low, high = (pairs[f"{tensor.name}.lora_{side}"].data for side in "ab")
                data = _changed(tensor, low, high, float(alpha.contents()))
            writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _changed(tensor: Any, low: Any, high: Any, alpha: float) -> Any:
    """The tensor plus the adapter's update; `low` is (rank, inputs), `high` (outputs, rank)."""
    import gguf

    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    update = high.astype("f4") @ low.astype("f4")
    if update.shape != values.shape:
        raise AdapterError(
            f"{tensor.name!r} has shape {values.shape}, its update {update.shape}: not this base"
        )
    try:
        return gguf.quants.quantize(values + alpha / len(low) * update, tensor.tensor_type)
    except NotImplementedError as error:
        raise AdapterError(
            f"{tensor.name!r} is {tensor.tensor_type.name}, which cannot be written: serve a base "
            "of Q8_0, Q4_0, Q4_1, BF16 or F16"
        ) from error


def _copy_fields(reader: Any, writer: Any) -> None:
    import gguf

    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in _WRITTEN_ELSEWHERE:
            continue
        element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=element)

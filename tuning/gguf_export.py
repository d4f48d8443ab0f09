"""Adapters as GGUF LoRA files for llama.cpp, which numbers rotary dimensions in another order."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuning.adapters import (
    TENSOR_PREFIX,
    module_pairs,
    read_lora_config,
    read_manifest,
    read_tensors,
    scaling,
    verify,
)
from tuning.atomic import replacing, sha256_file
from tuning.errors import AdapterError

# Source: llama.cpp, gguf-py/gguf/tensor_mapping.py.
_MODULES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
# What only a merged model has beside the modules an adapter changes.
_MORE_MODULES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_MORE_IN_LAYERS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_ARCHITECTURES = {"llama": "llama", "mistral": "llama"}


def export_gguf(adapter_dir: Path | str, base_folder: Path | str, out: Path | str) -> str:
    """Write a verified adapter as a GGUF LoRA file and return the file's SHA-256.

    Args:
        adapter_dir: The adapter directory; verified first.
        base_folder: Prepared base folder, for its head counts and shapes.
        out: The GGUF file; appears whole or not at all.

    Raises:
        AdapterError: If the adapter is damaged, does not fit the base model, or adapts a module
            or architecture that has no llama.cpp name here.
    """
    import gguf

    verify(adapter_dir, base_folder=base_folder)
    base = json.loads((Path(base_folder) / "config.json").read_text(encoding="utf-8"))
    architecture = _ARCHITECTURES.get(base.get("model_type", ""))
    if architecture is None:
        raise AdapterError(
            f"model type {base.get('model_type')!r} must be one of {', '.join(_ARCHITECTURES)}"
        )
    config = read_lora_config(adapter_dir)
    with replacing(Path(out)) as temporary:
        writer = gguf.GGUFWriter(temporary, architecture)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        # llama.cpp divides alpha by the rank; alpha is restated for adapters scaled otherwise.
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, scaling(config) * config["r"])
        writer.add_string("tandem.adapter.digest", read_manifest(adapter_dir).digest)
        for module, (a, b) in module_pairs(read_tensors(adapter_dir)).items():
            name, rotary_heads = _adapted_name(module.removeprefix(TENSOR_PREFIX), base)
            if rotary_heads:
                b = permute_rotary(b, rotary_heads)
            writer.add_tensor(f"{name}.weight.lora_a", a.half().numpy())
            writer.add_tensor(f"{name}.weight.lora_b", b.half().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return sha256_file(Path(out))


def _adapted_name(module: str, base: dict[str, Any]) -> tuple[str, int]:
    kind = ".".join(module.split(".")[3:])
    if kind not in _MODULES:
        raise AdapterError(f"module {module!r} has no llama.cpp name; known: {', '.join(_MODULES)}")
    return llamacpp_name(module, base)


def llamacpp_name(module: str, base: Mapping[str, Any]) -> tuple[str, int]:
    """llama.cpp's tensor name and the number of rotary heads among the rows (0 when none).

    Raises:
        AdapterError: If llama.cpp has no such module in this architecture.
    """
    if module in _MORE_MODULES:
        return _MORE_MODULES[module], 0
    parts = module.split(".")
    kind = ".".join(parts[3:])
    names = {**_MODULES, **_MORE_IN_LAYERS}
    if parts[:2] != ["model", "layers"] or kind not in names:
        raise AdapterError(f"module {module!r} has no llama.cpp name; known: {', '.join(names)}")
    heads = int(base["num_attention_heads"])
    rotary = {
        "self_attn.q_proj": heads,
        "self_attn.k_proj": int(base.get("num_key_value_heads") or heads),
    }
    return f"blk.{parts[2]}.{names[kind]}", rotary.get(kind, 0)


def permute_rotary(matrix: Any, heads: int) -> Any:
    """Reorder a matrix's rows from halves to pairs within each head.

    Source: llama.cpp, convert_hf_to_gguf.py, LlamaModel.permute.
    """
    rows, columns = matrix.shape
    halves = matrix.reshape(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns).contiguous()

"""An adapter folded into its base: a Hugging Face folder, or a GGUF of its own for llama.cpp.

This is how DoRA, IA3 and full runs are served by llama.cpp, which loads plain LoRA alone as an
adapter. Learnt prompts (prefix, prompt) change no weight and cannot be merged.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuning.adapters import method_of, read_config, verify
from tuning.atomic import replacing, replacing_folder, sha256_file, write_json
from tuning.base_model import QUANTISATIONS, base_digest, load_model, load_tokenizer
from tuning.errors import AdapterError, BaseModelError
from tuning.gguf_export import llamacpp_name, permute_rotary
from tuning.lora import load_adapted
from tuning.methods import MERGED, how_to_serve, served_by

ADAPTER_DIGEST_KEY = "tandem.adapter.digest"


def merged_model(adapter_dir: Path | str, base_folder: Path | str) -> Any:
    """The base model with an adapter's change in its own weights, in float32.

    Raises:
        AdapterError: If the adapter is damaged, made for another base, or cannot be merged.
    """
    method = method_of(read_config(adapter_dir))
    if not served_by(method, MERGED):
        raise AdapterError(f"adapter {str(adapter_dir)!r} cannot be merged: {how_to_serve(method)}")
    verify(adapter_dir, base_digest=base_digest(base_folder), base_folder=base_folder)
    adapted = load_adapted(load_model(base_folder, dtype="float32"), adapter_dir)
    return adapted if method == "full" else adapted.merge_and_unload()


def merge_to_folder(adapter_dir: Path | str, base_folder: Path | str, out: Path | str) -> None:
    """Write the merged model as a Hugging Face folder (bfloat16) with its tokenizer."""
    import torch

    digest = verify(adapter_dir).digest
    model = merged_model(adapter_dir, base_folder).to(torch.bfloat16)
    with replacing_folder(Path(out)) as folder:
        model.save_pretrained(folder)
        load_tokenizer(base_folder).save_pretrained(folder)
        write_json(
            folder / "merged.json",
            {"adapter_digest": digest, "base_digest": base_digest(base_folder)},
        )


def merge_to_gguf(
    adapter_dir: Path | str,
    base_folder: Path | str,
    base_gguf: Path | str,
    out: Path | str,
    kind: str = "Q8_0",
) -> str:
    """Write the merged model as a quantised GGUF and return the file's SHA-256.

    Args:
        adapter_dir: The adapter, verified first.
        base_folder: Prepared folder of its base model.
        base_gguf: A GGUF of the same base model, for tokenizer and settings.
        out: The file; appears whole or not at all.
        kind: One of `base_model.QUANTISATIONS`.

    Raises:
        AdapterError: If the adapter cannot be merged.
        BaseModelError: If the kind is unknown or the GGUF is not of this base model.
    """
    if kind not in QUANTISATIONS:
        raise BaseModelError(f"quantisation {kind!r} must be one of {', '.join(QUANTISATIONS)}")
    import gguf

    from tuning.base_model import copy_metadata, open_gguf

    model = merged_model(adapter_dir, base_folder)
    config = json.loads((Path(base_folder) / "config.json").read_text(encoding="utf-8"))
    weights = _by_llamacpp_name(dict(model.named_parameters()), config)
    reader = open_gguf(Path(base_gguf))
    names = [tensor.name for tensor in reader.tensors]
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise BaseModelError(f"{str(base_gguf)!r} has no {unknown[0]!r}: not this base model")
    with replacing(Path(out)) as temporary:
        writer = gguf.GGUFWriter(temporary, reader.fields["general.architecture"].contents())
        copy_metadata(reader, writer, kind)
        writer.add_string(ADAPTER_DIGEST_KEY, verify(adapter_dir).digest)
        for tensor in reader.tensors:
            if tensor.name not in weights:
                writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
                continue
            data, quantisation = _quantised(tensor.name, weights[tensor.name], kind)
            writer.add_tensor(tensor.name, data, raw_dtype=quantisation)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return sha256_file(Path(out))


def _by_llamacpp_name(parameters: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    weights = {}
    for name, parameter in parameters.items():
        gguf_name, heads = llamacpp_name(name.removesuffix(".weight"), config)
        value = parameter.detach().float()
        weights[f"{gguf_name}.weight"] = permute_rotary(value, heads) if heads else value
    return weights


def _quantised(name: str, weight: Any, kind: str) -> tuple[Any, Any]:
    import gguf

    values = weight.numpy()
    if values.ndim < 2:
        return values, gguf.GGMLQuantizationType.F32
    target = gguf.GGMLQuantizationType[kind]
    if name == "token_embd.weight" and kind.startswith("Q4"):
        target = gguf.GGMLQuantizationType.Q8_0
    return gguf.quants.quantize(values, target), target

"""Base models: a GGUF file dequantised once into a Hugging Face folder, and requantised copies.

The identity of a base model is the SHA-256 of the GGUF file it came from; the prepared folder
and every requantised copy carry that digest along.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.atomic import replacing, replacing_folder, sha256_file, write_json
from tuning.errors import BaseModelError
from tuning.hardware import resolve_dtype

HF_FOLDER = "hf"
IDENTITY_FILE = "base.json"
SOURCE_DIGEST_KEY = "tandem.source.sha256"
QUANTISATIONS = ("Q8_0", "Q4_0", "Q4_1", "BF16", "F16")

# llama.cpp splits digits one by one for these pre-tokenizers; transformers' GGUF conversion does
# not, and numbers would get other ids in training than in serving.
# Source: llama.cpp, src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM and its neighbours.
_SINGLE_DIGIT_PRE_TOKENIZERS = frozenset({"smollm", "starcoder", "refact", "command-r"})


@dataclass(frozen=True, slots=True)
class PreparedBase:
    """A base model ready for tuning: its Hugging Face folder and the digest of its source."""

    folder: Path
    digest: str


def prepare(gguf_path: Path | str, out_dir: Path | str) -> PreparedBase:
    """Dequantise a GGUF base once into `out_dir/hf` (bfloat16 safetensors and tokenizer).

    A folder already prepared from the same file is used as it is.

    Raises:
        BaseModelError: If the file is missing or transformers cannot read it.
    """
    source = Path(gguf_path)
    folder = Path(out_dir) / HF_FOLDER
    digest = base_digest(source)
    if _identity(folder).get("gguf_sha256") == digest:
        return PreparedBase(folder, digest)
    with replacing_folder(folder) as temporary:
        pre_tokenizer = _metadata(source).get("tokenizer.ggml.pre")
        _dequantise(source, temporary, pre_tokenizer)
        write_json(
            temporary / IDENTITY_FILE,
            {"gguf_sha256": digest, "gguf_name": source.name, "dtype": "bfloat16"},
        )
    return PreparedBase(folder, digest)


def base_digest(path: Path | str) -> str:
    """SHA-256 that identifies a base model file or prepared folder.

    For a folder made by `prepare` it is the digest of its GGUF source; for any other Hugging
    Face folder it is a digest over its weight and configuration files.

    Raises:
        BaseModelError: If nothing is there.
    """
    path = Path(path)
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        raise BaseModelError(f"base model {str(path)!r} does not exist")
    if recorded := _identity(path).get("gguf_sha256"):
        return str(recorded)
    files = sorted([*path.glob("*.safetensors"), *path.glob("config.json")])
    if not files:
        raise BaseModelError(f"{str(path)!r} holds neither safetensors nor config.json")
    return _combined_digest(files)


def source_digest(gguf_path: Path | str) -> str:
    """Digest of the GGUF a requantised copy was made from; its own digest if it is an original."""
    recorded = _metadata(Path(gguf_path)).get(SOURCE_DIGEST_KEY)
    return str(recorded) if recorded else base_digest(gguf_path)


def requantise(gguf_in: Path | str, gguf_out: Path | str, kind: str = "Q8_0") -> str:
    """Write a copy of a GGUF model in another quantisation and return the copy's SHA-256.

    All metadata is kept; one-dimensional tensors stay as they are, and for 4-bit kinds the token
    embeddings are written as Q8_0 (they are also the output head). The file appears whole or
    not at all.

    Raises:
        BaseModelError: If the kind is unknown or the input cannot be read.
    """
    if kind not in QUANTISATIONS:
        raise BaseModelError(f"quantisation {kind!r} must be one of {', '.join(QUANTISATIONS)}")
    import gguf

    source = Path(gguf_in)
    reader = open_gguf(source)
    with replacing(Path(gguf_out)) as temporary:
        architecture = reader.fields["general.architecture"].contents()
        writer = gguf.GGUFWriter(temporary, architecture)
        copy_metadata(reader, writer, kind)
        writer.add_string(SOURCE_DIGEST_KEY, source_digest(source))
        for tensor in reader.tensors:
            data, quantisation = _requantised(tensor, kind)
            writer.add_tensor(tensor.name, data, raw_dtype=quantisation)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return sha256_file(Path(gguf_out))


def load_tokenizer(folder: Path | str) -> Any:
    """The Hugging Face tokenizer of a prepared base folder."""
    from transformers import AutoTokenizer

    if not Path(folder).is_dir():
        raise BaseModelError(f"base model folder {str(folder)!r} does not exist")
    return AutoTokenizer.from_pretrained(str(folder))


def load_model(folder: Path | str, *, dtype: str = "auto", device: str = "cpu") -> Any:
    """The Hugging Face causal language model of a prepared base folder, in evaluation mode.

    `dtype` is "bfloat16", "float32" or "auto", see `hardware.resolve_dtype`.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if not Path(folder).is_dir():
        raise BaseModelError(f"base model folder {str(folder)!r} does not exist")
    model = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=getattr(torch, resolve_dtype(dtype, device))
    )
    return model.to(device).eval()


def _dequantise(source: Path, folder: Path, pre_tokenizer: str | None) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        model = AutoModelForCausalLM.from_pretrained(
            **where, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
    except (ValueError, KeyError, OSError, NotImplementedError) as error:
        raise BaseModelError(f"transformers cannot read {str(source)!r}: {error}") from error
    model.to(torch.bfloat16).save_pretrained(folder)
    if pre_tokenizer in _SINGLE_DIGIT_PRE_TOKENIZERS:
        from tokenizers import pre_tokenizers

        byte_level = pre_tokenizers.ByteLevel(
            add_prefix_space=False, trim_offsets=True, use_regex=True
        )
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), byte_level]
        )
    if not tokenizer.chat_template:
        raise BaseModelError(f"{str(source)!r} has no chat template: not an instruct model")
    tokenizer.save_pretrained(folder)


def _identity(folder: Path) -> dict[str, Any]:
    try:
        identity: dict[str, Any] = json.loads((folder / IDENTITY_FILE).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}
    return identity


def _combined_digest(files: list[Path]) -> str:
    import hashlib

    lines = "".join(f"{file.name} {sha256_file(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def open_gguf(path: Path) -> Any:
    """A reader of a GGUF file.

    Raises:
        BaseModelError: If the file is missing or not GGUF.
    """
    import gguf

    if not path.is_file():
        raise BaseModelError(f"base model file {str(path)!r} does not exist")
    try:
        return gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError) as error:
        raise BaseModelError(f"{str(path)!r} is not a readable GGUF file: {error}") from error


def _metadata(path: Path) -> dict[str, Any]:
    wanted = (SOURCE_DIGEST_KEY, "tokenizer.ggml.pre", "general.architecture")
    fields = open_gguf(path).fields
    return {name: fields[name].contents() for name in wanted if name in fields}


def copy_metadata(reader: Any, writer: Any, kind: str) -> None:
    """Copy a GGUF's metadata to a writer, with the quantisation the copy will have."""
    import gguf

    file_types = {
        "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
        "Q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
        "Q4_1": gguf.LlamaFileType.MOSTLY_Q4_1,
        "BF16": gguf.LlamaFileType.MOSTLY_BF16,
        "F16": gguf.LlamaFileType.MOSTLY_F16,
    }
    written_elsewhere = {"general.architecture", "general.file_type", SOURCE_DIGEST_KEY}
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in written_elsewhere:
            continue
        element_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=element_type)
    writer.add_file_type(int(file_types[kind]))


def _requantised(tensor: Any, kind: str) -> tuple[Any, Any]:
    import gguf

    target = gguf.GGMLQuantizationType[kind]
    if tensor.name == "token_embd.weight" and kind.startswith("Q4"):
        target = gguf.GGMLQuantizationType.Q8_0
    if len(tensor.shape) < 2 or tensor.tensor_type == target:
        return tensor.data, tensor.tensor_type
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return gguf.quants.quantize(values, target), target

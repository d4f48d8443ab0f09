"""A LoRA file folded into a base file: the numbers, the copied rest, and what is refused."""

import gguf
import numpy as np
import pytest

from tuning.errors import AdapterError
from tuning.fold import fold_gguf

RANK, ALPHA = 4, 8.0
Q8_0, F16 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F16


def write(path, tensors, *, alpha=None, kind=None):
    writer = gguf.GGUFWriter(path, "llama")
    if alpha is not None:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_float32("adapter.lora.alpha", alpha)
    else:
        writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    for name, values in tensors.items():
        if kind is None or values.ndim < 2:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read(path):
    reader = gguf.GGUFReader(path)
    return {t.name: (gguf.quants.dequantize(t.data, t.tensor_type), t) for t in reader.tensors}


@pytest.fixture
def weights():
    chance = np.random.default_rng(5)
    draw = lambda *shape: chance.normal(size=shape).astype("f4")  # noqa: E731
    return {
        "blk.0.attn_q.weight": draw(32, 64),
        "blk.0.ffn_up.weight": draw(32, 64),
        "output_norm.weight": draw(64),
    }


@pytest.fixture
def lora():
    chance = np.random.default_rng(6)
    return {
        "blk.0.attn_q.weight.lora_a": chance.normal(size=(RANK, 64)).astype("f2"),
        "blk.0.attn_q.weight.lora_b": chance.normal(size=(32, RANK)).astype("f2"),
    }


@pytest.mark.parametrize(("kind", "tolerance"), [(Q8_0, 0.06), (F16, 0.005)])
def test_changed_tensors_are_base_plus_scaled_update_in_the_bases_type(
    tmp_path, weights, lora, kind, tolerance
):
    base = write(tmp_path / "base.gguf", weights, kind=kind)
    adapter = write(tmp_path / "adapter.gguf", lora, alpha=ALPHA)
    fold_gguf(base, adapter, tmp_path / "out.gguf")
    before, after = read(base), read(tmp_path / "out.gguf")
    low, high = (lora[f"blk.0.attn_q.weight.lora_{side}"].astype("f4") for side in "ab")
    values, tensor = after["blk.0.attn_q.weight"]
    expected = before["blk.0.attn_q.weight"][0] + ALPHA / RANK * high @ low
    assert tensor.tensor_type == kind
    assert np.abs(values - expected).max() < tolerance * np.abs(expected).max()
    for name in ("blk.0.ffn_up.weight", "output_norm.weight"):
        assert after[name][1].data.tobytes() == before[name][1].data.tobytes()
    fields = gguf.GGUFReader(tmp_path / "out.gguf").fields
    assert fields["tokenizer.ggml.tokens"].contents() == ["a", "b"]


def test_files_that_do_not_fit_are_refused_by_name_and_leave_nothing(tmp_path, weights, lora):
    base, out = write(tmp_path / "base.gguf", weights, kind=Q8_0), tmp_path / "out.gguf"
    with pytest.raises(AdapterError, match=r"base\.gguf is no LoRA file"):
        fold_gguf(base, base, out)
    other = {name.replace("blk.0", "blk.7"): values for name, values in lora.items()}
    with pytest.raises(AdapterError, match=r"no tensor 'blk\.7\.attn_q\.weight'"):
        fold_gguf(base, write(tmp_path / "other.gguf", other, alpha=ALPHA), out)
    lora["blk.0.attn_q.weight.lora_b"] = lora["blk.0.attn_q.weight.lora_b"][:16]
    with pytest.raises(AdapterError, match=r"shape \(32, 64\), its update \(16, 64\)"):
        fold_gguf(base, write(tmp_path / "small.gguf", lora, alpha=ALPHA), out)
    assert not out.exists()

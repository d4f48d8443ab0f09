import numpy as np
import pytest

from tuning.atomic import replacing, replacing_folder
from tuning.base_model import base_digest, load_model, prepare, requantise, source_digest
from tuning.errors import BaseModelError


@pytest.fixture
def small_gguf(tmp_path):
    import gguf

    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Small")
    writer.add_array("tokenizer.ggml.tokens", ["<a>", "b", "\u00e9"])
    writer.add_float32("llama.rope.freq_base", 10000.0)
    values = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    q4 = gguf.GGMLQuantizationType.Q4_1
    writer.add_tensor("blk.0.attn_q.weight", gguf.quants.quantize(values, q4), raw_dtype=q4)
    writer.add_tensor("token_embd.weight", values)
    writer.add_tensor("output_norm.weight", values[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read(path):
    import gguf

    reader = gguf.GGUFReader(path)
    fields = {n: f.contents() for n, f in reader.fields.items() if not n.startswith("GGUF.")}
    values = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    return fields, values, {t.name: t.tensor_type.name for t in reader.tensors}


def test_requantising_keeps_metadata_and_nearly_keeps_values(small_gguf, tmp_path):
    out = tmp_path / "q8.gguf"
    digest = requantise(small_gguf, out, "Q8_0")
    old, old_values, _ = read(small_gguf)
    new, new_values, kinds = read(out)
    assert digest == base_digest(out)
    assert {k: v for k, v in new.items() if k in old} == old
    assert new["general.file_type"] == 7
    assert kinds == {
        "blk.0.attn_q.weight": "Q8_0",
        "token_embd.weight": "Q8_0",
        "output_norm.weight": "F32",
    }
    for name, values in old_values.items():
        assert np.abs(values - new_values[name]).max() < 0.02 * np.abs(values).max()


def test_a_requantised_copy_keeps_the_identity_of_its_source(small_gguf, tmp_path):
    requantise(small_gguf, tmp_path / "q8.gguf")
    requantise(tmp_path / "q8.gguf", tmp_path / "q4.gguf", "Q4_0")
    assert source_digest(small_gguf) == base_digest(small_gguf)
    assert source_digest(tmp_path / "q4.gguf") == base_digest(small_gguf)
    assert read(tmp_path / "q4.gguf")[2]["token_embd.weight"] == "Q8_0"


def test_an_unknown_quantisation_is_refused_and_nothing_is_written(small_gguf, tmp_path):
    with pytest.raises(BaseModelError, match="'Q3_K' must be one of Q8_0"):
        requantise(small_gguf, tmp_path / "x.gguf", "Q3_K")
    assert not (tmp_path / "x.gguf").exists()


def test_missing_and_foreign_files_are_base_model_errors(tmp_path):
    with pytest.raises(BaseModelError, match="does not exist"):
        prepare(tmp_path / "none.gguf", tmp_path)
    (tmp_path / "x.gguf").write_bytes(b"not a model" * 10)
    with pytest.raises(BaseModelError, match="not a readable GGUF"):
        prepare(tmp_path / "x.gguf", tmp_path / "out")
    with pytest.raises(BaseModelError, match="does not exist"):
        load_model(tmp_path / "none")
    assert not (tmp_path / "out" / "hf").exists()


def test_a_folder_digest_changes_with_its_weights(tiny_base, tmp_path):
    import shutil

    copy = shutil.copytree(tiny_base, tmp_path / "copy")
    assert base_digest(copy) == base_digest(tiny_base)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert base_digest(copy) != base_digest(tiny_base)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        fail_within(replacing(path), lambda temporary: temporary.write_text("half"))
    assert path.read_text() == "old"
    with pytest.raises(RuntimeError):
        fail_within(replacing_folder(tmp_path / "f"), lambda f: (f / "a").write_text("half"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def fail_within(context, write):
    with context as temporary:
        write(temporary)
        raise RuntimeError

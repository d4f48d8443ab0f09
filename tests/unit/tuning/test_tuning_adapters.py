import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from tuning import adapters
from tuning.adapter_signature import sign, signature_state
from tuning.adapters import AdapterManifest, verify, write_adapter
from tuning.base_model import load_model
from tuning.compression import compress_rank
from tuning.errors import AdapterError
from tuning.lora import adapter_state, attach_lora, load_adapted

BASE = "b" * 64


@pytest.fixture(scope="module")
def made(tiny_base, tmp_path_factory):
    """A rank 6 adapter with random A and B."""
    torch.manual_seed(1)
    model = attach_lora(load_model(tiny_base, dtype="float32"), r=6, alpha=12)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tensors, config = adapter_state(model, BASE)
    folder = tmp_path_factory.mktemp("adapter") / "a"
    manifest = AdapterManifest("", BASE, "t" * 64, 0, 0, 0)
    write_adapter(folder, tensors, config, manifest)
    return folder


@pytest.fixture
def adapter(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def logits(model):
    with torch.no_grad():
        return model(torch.arange(40)[None]).logits


def test_a_written_adapter_verifies_and_loads(adapter, tiny_base):
    manifest = verify(adapter, base_digest=BASE, base_folder=tiny_base)
    assert (manifest.rank, manifest.alpha, len(manifest.digest)) == (6, 12.0, 64)
    assert manifest.parameters == sum(t.numel() for t in adapters.read_tensors(adapter).values())
    assert {t.dtype for t in adapters.read_tensors(adapter).values()} == {torch.bfloat16}
    adapted = load_adapted(load_model(tiny_base, dtype="float32"), adapter)
    base = load_model(tiny_base, dtype="float32")
    assert not torch.allclose(logits(adapted), logits(base), atol=1e-3)


def test_the_same_tensors_give_the_same_digest(adapter, tmp_path):
    tensors = adapters.read_tensors(adapter)
    config = adapters.read_lora_config(adapter)
    again = write_adapter(tmp_path / "b", tensors, config, adapters.read_manifest(adapter))
    assert again.digest == adapters.read_manifest(adapter).digest


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "adapter_config.json", "manifest.json"]
)
def test_a_missing_or_truncated_file_is_an_adapter_error(adapter, name):
    whole = (adapter / name).read_bytes()
    (adapter / name).write_bytes(whole[:-10])
    with pytest.raises(AdapterError, match=r"damaged|changed"):
        verify(adapter)
    (adapter / name).unlink()
    with pytest.raises(AdapterError, match=f"has no {name}"):
        verify(adapter)


def test_a_changed_tensor_is_found_by_the_digest(adapter):
    tensors = adapters.read_tensors(adapter)
    first = next(iter(tensors))
    tensors[first][0, 0] += 1
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="changed since it was made"):
        verify(adapter)


def test_a_number_that_is_not_finite_is_found(adapter):
    tensors = adapters.read_tensors(adapter)
    tensors[next(iter(tensors))][0, 0] = float("nan")
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="NaN or infinity"):
        verify(adapter)


def test_another_base_model_is_refused(adapter):
    with pytest.raises(AdapterError, match="made for base bbbbbbbbbbbb, not for cccccccccccc"):
        verify(adapter, base_digest="c" * 64)


def test_shapes_of_another_base_model_are_refused(adapter, tiny_base, tmp_path):
    tensors = {k: v for k, v in load_model(tiny_base, dtype="float32").state_dict().items()}
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 5)
    (tmp_path / "other").mkdir()
    tensors.pop("lm_head.weight", None)
    save_file(tensors, tmp_path / "other" / "model.safetensors")
    with pytest.raises(AdapterError, match=r"up_proj.*the base model has \(3, 5\)"):
        verify(adapter, base_folder=tmp_path / "other")


def test_a_rank_other_than_configured_is_found(adapter):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "r": 5}))
    with pytest.raises(AdapterError, match="has rank 6/6, configured is 5"):
        verify(adapter)


def test_a_half_missing_module_is_found(adapter):
    tensors = adapters.read_tensors(adapter)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="has only"):
        verify(adapter)


def test_an_unsupported_option_is_refused(adapter):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "rank_pattern": {"q": 3}}))
    with pytest.raises(AdapterError, match="uses rank_pattern"):
        verify(adapter)


def test_dora_without_its_lengths_is_refused(adapter):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(AdapterError, match="14 modules and 0 column lengths"):
        verify(adapter)


def test_full_rank_compression_keeps_the_function(adapter, tiny_base, tmp_path):
    report = compress_rank(adapter, 6, tmp_path / "same")
    assert report.worst_error < 1e-6
    before = load_adapted(load_model(tiny_base, dtype="float32"), adapter)
    after = load_adapted(load_model(tiny_base, dtype="float32"), tmp_path / "same")
    assert torch.allclose(logits(before), logits(after), atol=5e-3)


def test_compression_to_a_lower_rank_is_the_truncated_svd(adapter, tmp_path):
    report = compress_rank(adapter, 3, tmp_path / "small")
    old = adapters.module_pairs(adapters.read_tensors(adapter))
    new = adapters.module_pairs(adapters.read_tensors(tmp_path / "small"))
    module = report.worst_module
    product = old[module][1].double() @ old[module][0].double()
    approximation = new[module][1].double() @ new[module][0].double()
    spectrum = torch.linalg.svdvals(product)
    best = float(spectrum[3:].norm() / spectrum.norm())
    assert report.worst_error == pytest.approx(best, rel=1e-4)
    error = float((product - approximation).norm() / product.norm())
    assert error == pytest.approx(best, rel=0.02)
    assert (report.manifest.rank, report.manifest.alpha) == (3, 6.0)
    assert report.manifest.compression["from_rank"] == 6
    assert report.manifest.parameters * 2 == adapters.read_manifest(adapter).parameters
    verify(tmp_path / "small", base_digest=BASE)


def test_checks_of_the_whole_adapter_are_not_those_of_the_compressed_one(adapter, tmp_path):
    adapters.record_checks(adapter, {"forgetting": {"summary": "none"}})
    assert compress_rank(adapter, 3, tmp_path / "small").manifest.checks == {}


@pytest.mark.parametrize("name", ["method", "objective"])
def test_a_manifest_that_names_something_unknown_is_refused(adapter, name):
    record = json.loads((adapter / "manifest.json").read_text())
    (adapter / "manifest.json").write_text(json.dumps({**record, name: "magic"}))
    with pytest.raises(AdapterError, match="'magic'"):
        verify(adapter)


def test_compression_cannot_raise_the_rank(adapter, tmp_path):
    with pytest.raises(AdapterError, match=r"rank 7 must lie in 1\.\.6"):
        compress_rank(adapter, 7, tmp_path / "x")


def test_the_card_states_digest_base_limits_and_licence(adapter):
    card = (adapter / "README.md").read_text()
    for part in (adapters.read_manifest(adapter).digest[:12], BASE, "## Limits", "## Licence"):
        assert part in card


def test_the_gguf_holds_permuted_rotary_rows(adapter, tiny_base, tmp_path):
    import gguf

    from tuning.gguf_export import export_gguf

    out = tmp_path / "a.gguf"
    export_gguf(adapter, tiny_base, out)
    reader = gguf.GGUFReader(out)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora"
    assert fields["adapter.lora.alpha"] == 12.0
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    assert len(tensors) == 28
    pairs = adapters.module_pairs(adapters.read_tensors(adapter))
    key = pairs["base_model.model.model.layers.0.self_attn.k_proj"][1].half().numpy()
    # Two key heads of eight rows each: pairs (0, 4), (1, 5), ... become neighbours.
    order = [h * 8 + half * 4 + i for h in range(2) for i in range(4) for half in range(2)]
    assert (tensors["blk.0.attn_k.weight.lora_b"] == key[order]).all()
    value = pairs["base_model.model.model.layers.1.self_attn.v_proj"][1].half().numpy()
    assert (tensors["blk.1.attn_v.weight.lora_b"] == value).all()


def test_a_damaged_adapter_is_not_exported(adapter, tiny_base, tmp_path):
    from tuning.gguf_export import export_gguf

    (adapter / "adapter_config.json").unlink()
    with pytest.raises(AdapterError, match="has no adapter_config"):
        export_gguf(adapter, tiny_base, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


def test_an_unknown_architecture_is_not_exported(adapter, tiny_base, tmp_path):
    from tuning.gguf_export import export_gguf

    other = shutil.copytree(tiny_base, tmp_path / "base")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(AdapterError, match="model type 'gpt2' must be one of"):
        export_gguf(adapter, other, tmp_path / "a.gguf")


def test_a_signature_covers_every_field_of_the_manifest(adapter):
    key = b"k" * 32
    assert signature_state(adapter, key) == "unsigned"
    sign(adapter, key)
    assert signature_state(adapter, key) == "signed"
    assert signature_state(adapter, b"o" * 32) == "forged"
    verify(adapter, base_digest=BASE)
    signed = json.loads((adapter / "manifest.json").read_text())
    for name, value in signed.items():
        if name == "signature":
            continue
        other = f"{value}x" if isinstance(value, str) else [value, 1]
        (adapter / "manifest.json").write_text(json.dumps({**signed, name: other}))
        assert signature_state(adapter, key) == "forged", name
    (adapter / "manifest.json").write_text(json.dumps({**signed, "added": 1}))
    assert signature_state(adapter, key) == "forged"


def test_tensors_replaced_with_a_new_digest_do_not_keep_the_signature(adapter):
    key = b"k" * 32
    sign(adapter, key)
    tensors = adapters.read_tensors(adapter)
    tensors[next(iter(tensors))][0, 0] += 1
    save_file(tensors, adapter / "adapter_model.safetensors")
    record = json.loads((adapter / "manifest.json").read_text())
    record["digest"] = adapters.adapter_digest(adapter)
    (adapter / "manifest.json").write_text(json.dumps(record))
    verify(adapter)
    assert signature_state(adapter, key) == "forged"


def test_checks_made_later_take_the_signature_off(adapter):
    sign(adapter, b"k" * 32)
    adapters.record_checks(adapter, {"forgetting": {"summary": "none"}})
    assert signature_state(adapter, b"k" * 32) == "unsigned"

import dataclasses
import hashlib

import pytest
import torch

from tuning import adapters
from tuning.base_model import load_model
from tuning.builder import DrawConfig, build_rows
from tuning.completion_trainer import PackedCollator, PlannedBatchCollator, completion_loss
from tuning.errors import AdapterError, TrainingInterruptedError, TuneConfigError
from tuning.lora import load_adapted, start_from
from tuning.methods import METHODS, how_to_serve, load_trainable, virtual_columns
from tuning.train import tune

ON_CPU = [name for name, method in METHODS.items() if not method.needs_gpu]


@pytest.fixture
def config(config):
    return dataclasses.replace(config, epochs=2, eval_rows=2, eval_new_tokens=3, patience=0)


def folder_digest(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def base_weights(model):
    """Copies of the weights that came with the base model, by their name in it."""
    added = ("lora_", "ia3_", "prompt_encoder")
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if not any(part in name for part in added)
    }


@pytest.mark.parametrize("method", ON_CPU)
def test_a_run_learns_and_leaves_the_base_as_it_was(config, tiny_base, method, batch):
    before = folder_digest(tiny_base)
    # A few random vectors move a random model little.
    rate = 0.3 if method in ("prefix", "prompt") else 1e-2
    manifest = tune(dataclasses.replace(config, method=method, learning_rate=rate))
    assert folder_digest(tiny_base) == before
    assert manifest.method == method
    assert manifest.curve[-1]["loss"] < manifest.curve[0]["loss"]
    assert adapters.verify(config.output, base_folder=tiny_base) == manifest
    base = load_model(tiny_base, dtype="float32")
    adapted = load_adapted(load_model(tiny_base, dtype="float32"), config.output)
    with torch.no_grad():
        better = completion_loss(adapted, batch)
        assert better < completion_loss(base, batch)


@pytest.mark.parametrize("method", [name for name in ON_CPU if name != "full"])
def test_frozen_base_weights_stay_bit_for_bit_through_training_steps(config, method, batch):
    model = load_trainable(dataclasses.replace(config, method=method))
    before = base_weights(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    first = [p.detach().clone() for p in trained]
    optimizer = torch.optim.AdamW(trained, lr=0.05)
    model.train()
    for _ in range(3):
        completion_loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = base_weights(model)
    assert len(before) > 15
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(not torch.equal(a, b) for a, b in zip(first, trained, strict=True))


@pytest.mark.parametrize("method", ON_CPU)
def test_the_loss_of_kept_positions_is_the_loss_on_full_logits(config, method, batch):
    model = load_trainable(dataclasses.replace(config, method=method)).eval()
    ours = completion_loss(model, batch)
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits
    shift = virtual_columns(model)
    logits = logits[:, shift:][:, :-1]
    full = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100
    )
    assert ours.item() == pytest.approx(full.item(), rel=1e-5)


@pytest.mark.parametrize("method", ["dora", "prefix", "full"])
def test_an_interrupted_run_resumes_to_the_uninterrupted_result(config, method, tmp_path):
    settings = dataclasses.replace(config, method=method)
    whole = tune(dataclasses.replace(settings, output=str(tmp_path / "whole")))
    seen = []
    with pytest.raises(TrainingInterruptedError):
        tune(settings, lambda e: seen.append(e.step), lambda: bool(seen) and seen[-1] >= 3)
    assert tune(settings).digest == whole.digest


@pytest.mark.parametrize("method", ["rslora", "dora", "ia3", "prompt", "full"])
def test_a_second_stage_starts_with_the_function_of_the_first(config, tiny_base, method, batch):
    settings = dataclasses.replace(config, method=method)
    tune(settings)
    first = load_adapted(load_model(tiny_base, dtype="float32"), config.output)
    second = load_trainable(settings)
    start_from(second, method, config.output)
    with torch.no_grad():
        assert torch.allclose(
            completion_loss(first, batch), completion_loss(second.eval(), batch), atol=1e-4
        )


def test_a_method_that_cannot_continue_another_says_which_can(config, tiny_base):
    tune(config)
    model = load_trainable(dataclasses.replace(config, method="ia3"))
    with pytest.raises(AdapterError, match="by 'ia3'; choose lora, rslora, qlora"):
        start_from(model, "ia3", config.output)


def test_qlora_without_a_gpu_names_what_is_missing_and_the_choices(config):
    with pytest.raises(TuneConfigError, match=r"needs a GPU.*choose lora, dora, rslora, full"):
        load_trainable(dataclasses.replace(config, method="qlora", device="cpu"))


def test_what_llamacpp_cannot_serve_says_how_to_serve_it(config, tiny_base, tmp_path):
    from tuning.gguf_export import export_gguf

    tune(dataclasses.replace(config, method="dora"))
    with pytest.raises(AdapterError, match=r"merged into a GGUF of its own.*lora, rslora, qlora"):
        export_gguf(config.output, tiny_base, tmp_path / "x.gguf")
    assert how_to_serve("lora").endswith("llama.cpp and vLLM")
    assert "transformers engine only" in how_to_serve("prefix")


def test_small_factors_keep_more_digits_than_bfloat16_has(config):
    tune(dataclasses.replace(config, method="ia3", learning_rate=1e-3))
    assert {t.dtype for t in adapters.read_tensors(config.output).values()} == {torch.float32}


def test_packed_rows_do_not_see_each_other(tiny_base, rows, tokenizer):
    encoded = list(build_rows(rows, tokenizer, DrawConfig(), seed=0, epoch=0).rows)
    model = load_model(tiny_base, dtype="float32")
    length = sum(len(row.input_ids) for row in encoded[:3]) + 7
    packed = PackedCollator(encoded, 2, length)([{"rows": [0, 1, 2]}])
    padded = PlannedBatchCollator(encoded, 2)([{"rows": [0, 1, 2]}])
    assert completion_loss(model, packed).item() == pytest.approx(
        completion_loss(model, padded).item(), rel=1e-5
    )


def test_a_packed_run_trains(config):
    packed = dataclasses.replace(config, packing=True, batch_tokens=2048, max_length=1024)
    manifest = tune(packed)
    assert manifest.curve[-1]["loss"] < manifest.curve[0]["loss"]


def test_packing_needs_a_line_length(config):
    with pytest.raises(TuneConfigError, match="packing needs batch_tokens"):
        dataclasses.replace(config, packing=True)


def test_gradient_checkpointing_gives_the_same_adapter(config, tmp_path):
    plain = tune(config)
    saving = dataclasses.replace(
        config, gradient_checkpointing=True, output=str(tmp_path / "saving")
    )
    for one, two in zip(plain.curve, tune(saving).curve, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)


def test_the_probe_foretells_and_changes_nothing(config, tmp_path):
    plain = tune(config)
    probed = tune(dataclasses.replace(config, probe_steps=1, output=str(tmp_path / "probed")))
    assert probed.digest == plain.digest
    assert plain.estimate == {}
    assert probed.estimate["seconds"] > 0
    assert probed.estimate["actual_seconds"] > 0
    assert probed.estimate["tokens"] == probed.tokens


def test_smaller_shares_are_subsets_of_greater_ones(config, tokenizer):
    from tuning.plan import make_plan

    rows = []
    for share in (0.3, 0.6, 1.0):
        plan = make_plan(dataclasses.replace(config, train_share=share), tokenizer, lambda: None)
        rows.append({row.row_id for row in plan.rows})
    assert rows[0] < rows[1] < rows[2]

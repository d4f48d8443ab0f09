import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tuning import adapters
from tuning.base_model import load_model
from tuning.builder import DrawConfig, build_rows
from tuning.completion_trainer import PlannedBatchCollator, completion_loss, cosine_factor
from tuning.config import config_from
from tuning.errors import (
    AdapterError,
    TrainingFailedError,
    TrainingInterruptedError,
    TuneConfigError,
    TuningError,
)
from tuning.lora import adapter_state, attach_lora, continue_from, load_adapted
from tuning.plan import length_grouped_batches, make_plan
from tuning.snapshot import load
from tuning.train import tune


def weights(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_the_loss_on_kept_columns_equals_the_loss_on_full_logits(tiny_base, batch):
    model = load_model(tiny_base, dtype="float32")
    ours = completion_loss(model, batch)
    full = model(input_ids=batch["input_ids"], labels=batch["labels"]).loss
    assert ours.item() == pytest.approx(full.item(), rel=1e-5)


def test_the_head_is_run_on_completion_tokens_only(tiny_base, batch):
    model = load_model(tiny_base, dtype="float32")
    shapes = []
    model.lm_head.register_forward_hook(lambda _, given, made: shapes.append(made.shape[:-1]))
    completion_loss(model, batch)
    assert shapes == [(int(batch["labels"].ne(-100).sum()),)]
    assert model.lm_head._forward_pre_hooks == {}


def test_padding_does_not_change_the_loss_of_a_row(tiny_base, rows, tokenizer):
    encoded = list(build_rows(rows, tokenizer, DrawConfig(), seed=0, epoch=0).rows)
    model = load_model(tiny_base, dtype="float32")
    collate = PlannedBatchCollator(encoded, 2)
    short = min(range(9), key=lambda i: len(encoded[i].input_ids))
    long = max(range(9), key=lambda i: len(encoded[i].input_ids))
    alone = completion_loss(model, collate([{"rows": [short]}]), 1)
    other = completion_loss(model, collate([{"rows": [long]}]), 1)
    both = completion_loss(model, collate([{"rows": [short, long]}]), 1)
    assert both.item() == pytest.approx(alone.item() + other.item(), rel=1e-5)


def test_training_moves_the_adapter_and_leaves_the_base_alone(config, tiny_base):
    before = weights(load_model(tiny_base, dtype="float32"))
    events = []
    manifest = tune(config, events.append)
    after = weights(load_model(tiny_base, dtype="float32"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    moved = [b for _, b in adapters.module_pairs(adapters.read_tensors(config.output)).values()]
    assert len(moved) == 14
    assert all(bool(b.any()) for b in moved)
    assert manifest.curve[-1]["loss"] < manifest.curve[0]["loss"]
    assert adapters.verify(config.output, base_folder=tiny_base) == manifest
    assert [event.phase for event in events][-2:] == ["save", "done"]
    assert len([event for event in events if event.phase == "evaluate"]) == 3
    assert not config.work.exists()


def test_wrapped_base_weights_stay_bit_for_bit_through_training_steps(tiny_base, batch):
    model = attach_lora(load_model(tiny_base, dtype="float32"), r=4, alpha=8)
    before = weights(model)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(3):
        completion_loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = weights(model)
    base = [name for name in before if "lora_" not in name]
    assert any("base_layer" in name for name in base)
    assert all(torch.equal(before[name], after[name]) for name in base)
    changed = [n for n in before if "lora_" in n and not torch.equal(before[n], after[n])]
    assert len(changed) == 28


def test_a_finished_run_is_returned_as_it_is(config):
    first = tune(config)
    events = []
    assert tune(config, events.append) == first
    assert [event.message for event in events] == ["already finished"]


def test_a_finished_output_of_other_settings_is_not_overwritten(config):
    tune(dataclasses.replace(config, epochs=1))
    with pytest.raises(TuneConfigError, match="other settings"):
        tune(config)


def test_an_interrupted_run_resumes_to_the_uninterrupted_result(config, tmp_path):
    whole = tune(dataclasses.replace(config, output=str(tmp_path / "whole"), dropout=0.1))
    parts = dataclasses.replace(config, dropout=0.1)
    steps = []
    with pytest.raises(TrainingInterruptedError, match="step 4 of 9"):
        tune(parts, lambda e: steps.append(e.step), lambda: bool(steps) and steps[-1] >= 3)
    assert parts.work.is_dir()
    events = []
    resumed = tune(parts, events.append)
    assert events[1].message == "resuming at step 4"
    assert resumed.steps == whole.steps == 9
    assert resumed.digest == whole.digest
    assert [e["step"] for e in resumed.curve] == list(range(1, 10))
    assert resumed.dev == whole.dev


def test_a_checkpoint_without_its_marker_is_not_resumed_from(config):
    steps = []
    with pytest.raises(TrainingInterruptedError):
        tune(config, lambda e: steps.append(e.step), lambda: bool(steps) and steps[-1] >= 3)
    newest = config.work / "checkpoints" / "checkpoint-4"
    (newest / "COMPLETE").unlink()
    (newest / "adapter_model.safetensors").write_bytes(b"torn")
    events = []
    assert tune(config, events.append).steps == 9
    assert events[1].message == "resuming at step 3"


def test_a_work_folder_of_other_settings_is_refused(config):
    steps = []
    with pytest.raises(TrainingInterruptedError):
        tune(config, lambda e: steps.append(e.step), lambda: bool(steps) and steps[-1] >= 1)
    with pytest.raises(TuneConfigError, match=r"another learning_rate: 0\.01, not 0\.5"):
        tune(dataclasses.replace(config, learning_rate=0.5))


def test_a_run_begun_before_a_setting_existed_goes_on(config):
    steps = []
    with pytest.raises(TrainingInterruptedError):
        tune(config, lambda e: steps.append(e.step), lambda: bool(steps) and steps[-1] >= 1)
    file = config.work / "config.json"
    record = json.loads(file.read_text())
    del record["average"]
    file.write_text(json.dumps(record))
    assert tune(config).steps == 9


def test_two_processes_cannot_train_into_one_folder(config):
    from tuning.checkpoints import WorkFolder

    with WorkFolder(config.work).locked(), pytest.raises(TuningError, match="another process"):
        tune(config)


def test_a_loss_that_is_not_finite_fails_the_run(config):
    with pytest.raises(TrainingFailedError, match="lower learning_rate"):
        tune(dataclasses.replace(config, learning_rate=1e30, max_grad_norm=1e30))


def test_patience_ends_a_run_without_progress_and_keeps_the_best(config):
    # A learning rate this small changes no greedy answer, so no evaluation is better.
    manifest = tune(dataclasses.replace(config, learning_rate=1e-12, epochs=9, patience=2))
    assert manifest.stopped_by == "no better dev score in 2 evaluations"
    assert (manifest.steps, manifest.best_step) == (9, 3)


def test_a_token_budget_shortens_the_plan(config):
    whole = tune(dataclasses.replace(config, output=config.output + "-whole"))
    manifest = tune(dataclasses.replace(config, max_tokens=whole.tokens // 2))
    assert 0 < manifest.tokens <= whole.tokens // 2


def test_a_time_budget_stops_the_run_with_a_usable_adapter(config):
    manifest = tune(dataclasses.replace(config, max_seconds=1e-6))
    assert manifest.stopped_by.startswith("max_seconds")
    assert manifest.steps == 1
    adapters.verify(config.output)


def test_a_greater_rank_starts_with_the_function_of_the_reader(config, tiny_base, batch, tmp_path):
    tune(config)
    reader = load_adapted(load_model(tiny_base, dtype="float32"), config.output)
    house = attach_lora(load_model(tiny_base, dtype="float32"), r=7, alpha=3.5)
    continue_from(house, config.output)
    inputs = {"input_ids": batch["input_ids"]}
    base_logits = load_model(tiny_base, dtype="float32")(**inputs).logits
    with torch.no_grad():
        reader_logits, house_logits = reader(**inputs).logits, house.eval()(**inputs).logits
    assert torch.allclose(reader_logits, house_logits, atol=1e-5)
    assert not torch.allclose(reader_logits, base_logits, atol=1e-3)
    second = dataclasses.replace(
        config, output=str(tmp_path / "house"), r=7, start_from=config.output, eval_rows=0
    )
    assert tune(second).start_from == adapters.read_manifest(config.output).digest


def test_a_smaller_rank_than_the_reader_is_refused(config, tiny_base):
    tune(config)
    house = attach_lora(load_model(tiny_base, dtype="float32"), r=2, alpha=4)
    with pytest.raises(AdapterError, match="has rank 4; use r >= 4, not 2"):
        continue_from(house, config.output)


def test_fewer_target_modules_than_the_reader_are_refused(config, tiny_base):
    tune(config)
    house = attach_lora(
        load_model(tiny_base, dtype="float32"), r=4, alpha=8, target_modules="q_proj,v_proj"
    )
    with pytest.raises(AdapterError, match="not among the target modules"):
        continue_from(house, config.output)


def test_the_saved_configuration_names_no_path(config, tiny_base):
    tune(config)
    text = "".join(
        (adapters.Path(config.output) / name).read_text()
        for name in ("adapter_config.json", "manifest.json", "README.md")
    )
    assert str(tiny_base.parent) not in text
    model = attach_lora(load_model(tiny_base, dtype="float32"), r=4, alpha=8)
    assert adapter_state(model, "0" * 64)[1]["base_model_name_or_path"] == "sha256:" + "0" * 64


def test_epochs_of_a_plan_show_other_draws_and_every_row_once(config, tokenizer, sealed):
    plan = make_plan(config, tokenizer, lambda: None)
    names = {row["id"] for row in load(sealed).split("train")}
    used = [plan.rows[i] for chunk in plan.batches for i in chunk]
    assert len(used) == 3 * len(names)
    epochs = [sorted(used[k : k + 9], key=lambda r: r.row_id) for k in (0, 9, 18)]
    assert all({row.row_id for row in epoch} == names for epoch in epochs)
    assert [r.input_ids for r in epochs[0]] != [r.input_ids for r in epochs[1]]
    assert (plan.steps, plan.epoch_ends) == (9, (3, 6, 9))
    assert plan.tokens_at(9) == sum(len(row.input_ids) for row in used)


def test_rows_encoded_in_worker_processes_are_the_same(config, tokenizer, monkeypatch):
    monkeypatch.setattr("tuning.plan.CHUNK_ROWS", 3)
    alone = make_plan(config, tokenizer, lambda: None)
    shared = make_plan(dataclasses.replace(config, workers=2), tokenizer, lambda: None)
    assert shared == alone


def test_token_batches_keep_within_their_size(config):
    lengths = [(7 * i) % 90 + 10 for i in range(500)]
    settings = dataclasses.replace(config, batch_tokens=2048)
    batches = list(length_grouped_batches(lengths, settings, 0))
    assert sorted(i for chunk in batches for i in chunk) == list(range(500))
    padded = [max(lengths[i] for i in chunk) * len(chunk) for chunk in batches]
    assert max(padded) <= 2048
    assert sum(lengths) / sum(padded) > 0.85


def test_unknown_and_bad_settings_are_refused():
    with pytest.raises(TuneConfigError, match="unknown setting 'lr'"):
        config_from({"base": "b", "output": "o", "lr": 1})
    with pytest.raises(TuneConfigError, match="snapshot or reader_rows"):
        config_from({"base": "b", "output": "o"})
    with pytest.raises(TuneConfigError, match="dtype='int8' must be one of"):
        config_from({"base": "b", "output": "o", "snapshot": "s", "dtype": "int8"})
    with pytest.raises(TuneConfigError, match="r=0 must be > 0"):
        config_from({"base": "b", "output": "o", "snapshot": "s", "r": 0})


def test_a_configuration_survives_json(config):
    assert config_from(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@given(st.integers(1, 400), st.floats(0, 0.5))
def test_learning_rate_without_a_time_limit_is_the_usual_cosine(steps, warmup):
    from transformers import get_cosine_schedule_with_warmup

    rising = math.ceil(warmup * steps)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    usual = get_cosine_schedule_with_warmup(optimizer, rising, steps).lr_lambdas[0]
    for step in {0, 1, steps // 3, steps // 2, steps - 1, steps}:
        ours = cosine_factor(steps, warmup, lambda: 0.0, step)
        assert ours == pytest.approx(usual(step), abs=1e-9)


@given(st.integers(10, 400), st.floats(0, 0.3), st.floats(0, 1), st.floats(0, 1))
def test_learning_rate_falls_with_the_time_where_that_ends_first(steps, warmup, early, late):
    early, late = sorted((early, late))
    step = math.ceil(warmup * steps) + 1
    at = [cosine_factor(steps, warmup, lambda share=s: share, step) for s in (early, late, 1.0)]
    assert at[0] >= at[1] >= at[2] == pytest.approx(0, abs=1e-9)
    assert all(0 <= value <= 1 for value in at)

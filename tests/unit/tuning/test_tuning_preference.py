import dataclasses
import itertools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tuning import adapters
from tuning.base_model import load_model
from tuning.config import TuneConfig
from tuning.errors import SnapshotError, TrainingInterruptedError, TuneConfigError
from tuning.lora import load_adapted
from tuning.methods import load_trainable
from tuning.plan import make_plan
from tuning.preference import (
    PreferenceCollator,
    PreferenceLoss,
    completion_log_probabilities,
    dpo_loss,
    kto_loss,
    make_preference_plan,
)
from tuning.snapshot import Extras, load, seal
from tuning.train import tune


def messages(text):
    return [{"role": "system", "content": "Help."}, {"role": "user", "content": text}]


@pytest.fixture
def snapshot(sealed, tmp_path):
    """The sealed rows with preferences, as the dataset builder writes them."""
    folder = tmp_path / "snapshot"
    pairs = [
        {"messages": messages(f"Plan {i}?"), "chosen": f"{i} euros [1]", "rejected": "No idea!"}
        for i in range(6)
    ]
    ratings = [
        {"messages": messages(f"Plan {i}?"), "completion": f"{i} is fine", "label": i % 3 > 0}
        for i in range(7)
    ]
    seal(load(sealed).rows, folder, extras=Extras(pairs=tuple(pairs), ratings=tuple(ratings)))
    return folder


@pytest.fixture
def config(tiny_base, snapshot, tmp_path):
    return TuneConfig(
        base=str(tiny_base),
        output=str(tmp_path / "adapter"),
        snapshot=str(snapshot),
        objective="dpo",
        r=4,
        alpha=8,
        learning_rate=1e-2,
        epochs=3,
        batch_rows=2,
        dtype="float32",
        eval_rows=0,
        log_steps=1,
        checkpoint_steps=2,
    )


def test_a_dpo_run_starts_at_its_reference_and_meets_the_preferences(config):
    manifest = tune(config)
    assert manifest.objective == "dpo"
    assert manifest.curve[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert manifest.curve[0]["margin"] == pytest.approx(0, abs=1e-5)
    assert manifest.curve[-1]["accuracy"] == 1.0
    assert manifest.curve[-1]["margin"] > 0.01


def test_a_kto_run_moves_ratings_to_their_side(config, tokenizer):
    settings = dataclasses.replace(config, objective="kto", epochs=6)
    manifest = tune(settings)
    assert manifest.objective == "kto"
    assert manifest.curve[-1]["accuracy"] > 0.5
    assert manifest.curve[-1]["margin"] > manifest.curve[0]["margin"]


def test_chosen_answers_become_likelier_than_rejected_ones(config, tiny_base, tokenizer):
    tune(config)
    prepared = make_preference_plan(config, tokenizer, lambda: None)
    batch = PreferenceCollator(prepared.plan.rows, 2)([{"rows": list(range(12))}])
    base = load_model(tiny_base, dtype="float32")
    adapted = load_adapted(load_model(tiny_base, dtype="float32"), config.output)
    with torch.no_grad():
        before, _ = completion_log_probabilities(base, batch)
        after, _ = completion_log_probabilities(adapted, batch)
    gain = after - before
    assert bool((gain[0::2] > gain[1::2]).all())


def test_log_probabilities_equal_those_of_full_logits(config, tiny_base, tokenizer):
    prepared = make_preference_plan(config, tokenizer, lambda: None)
    batch = PreferenceCollator(prepared.plan.rows, 2)([{"rows": [0, 1, 4, 5]}])
    model = load_model(tiny_base, dtype="float32")
    with torch.no_grad():
        sums, counts = completion_log_probabilities(model, batch)
        full = model(input_ids=batch["input_ids"]).logits.log_softmax(-1)
    for line, row in enumerate(prepared.plan.rows[i] for i in (0, 1, 4, 5)):
        ids = row.input_ids
        each = [full[line, k - 1, ids[k]] for k in range(row.prompt_length, len(ids))]
        assert sums[line].item() == pytest.approx(float(sum(each)), rel=1e-5)
        assert counts[line] == len(each)


def test_a_killed_preference_run_resumes_to_the_same_adapter(config, tmp_path):
    settings = dataclasses.replace(config, objective="kto", epochs=2)
    whole = tune(dataclasses.replace(settings, output=str(tmp_path / "whole")))
    seen = []
    with pytest.raises(TrainingInterruptedError):
        tune(settings, lambda e: seen.append(e.step), lambda: bool(seen) and seen[-1] >= 4)
    assert tune(settings).digest == whole.digest


def test_a_preference_run_is_held_to_the_adapter_it_starts_from(config, tmp_path):
    first = dataclasses.replace(config, objective="sft", output=str(tmp_path / "sft"))
    digest = tune(first).digest
    second = dataclasses.replace(config, start_from=first.output, epochs=1)
    manifest = tune(second)
    assert manifest.start_from == digest
    assert manifest.curve[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_a_preference_run_that_is_no_better_keeps_its_start(config, tmp_path):
    # No greedy answer changes at this rate, so no later checkpoint is better than the start.
    manifest = tune(dataclasses.replace(config, learning_rate=1e-12, eval_rows=3))
    assert manifest.best_step == 0
    assert manifest.dev[0]["step"] == 0
    matrices = adapters.module_pairs(adapters.read_tensors(config.output))
    assert not any(bool(b.any()) for _, b in matrices.values())


def test_learnt_prompts_are_held_to_the_bare_base(config, tiny_base, tokenizer):
    settings = dataclasses.replace(config, method="prompt", virtual_tokens=3)
    prepared = make_preference_plan(settings, tokenizer, lambda: None)
    collate = PreferenceCollator(prepared.plan.rows, 2)
    loss = PreferenceLoss(settings, prepared)
    loss.measure_reference(load_trainable(settings), collate)
    batch = collate([{"rows": [0, 1]}])
    with torch.no_grad():
        base, _ = completion_log_probabilities(load_model(tiny_base, dtype="float32"), batch)
    assert torch.allclose(loss.reference[:2], base, atol=1e-4)


def test_kto_batches_pair_every_prompt_with_another_completion(config, tokenizer):
    prepared = make_preference_plan(
        dataclasses.replace(config, objective="kto", batch_rows=3), tokenizer, lambda: None
    )
    plan = prepared.plan
    seen = []
    for batch in plan.batches:
        half = len(batch) // 2
        assert half >= 2
        for own, other in zip(batch[:half], batch[half:], strict=True):
            row, mixed = plan.rows[own], plan.rows[other]
            assert prepared.desirable[own] is not None
            assert prepared.desirable[other] is None
            length = row.prompt_length
            assert mixed.input_ids[:length] == row.input_ids[:length]
            assert mixed.input_ids != row.input_ids
        seen += batch[:half]
    assert sorted(seen) == sorted(list(range(7)) * 3)


def test_both_sides_of_kto_weigh_alike(config, tokenizer):
    settings = dataclasses.replace(config, objective="kto")
    prepared = make_preference_plan(settings, tokenizer, lambda: None)
    loss = PreferenceLoss(settings, prepared)
    up, down = (sum(d is side for d in prepared.desirable) for side in (True, False))
    assert loss.weight_up * up == pytest.approx(loss.weight_down * down)


ratio = st.floats(-20, 20)


@given(st.lists(st.tuples(ratio, ratio), min_size=1, max_size=8), st.floats(0.01, 2))
def test_dpo_is_the_logistic_loss_of_the_margin(pairs, beta):
    chosen, rejected = (
        torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True)
    )
    loss, margins = dpo_loss(chosen, rejected, beta)
    by_hand = [math.log1p(math.exp(-beta * (c - r))) for c, r in pairs]
    assert loss.item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-6, abs=1e-9)
    assert margins.tolist() == pytest.approx([beta * (c - r) for c, r in pairs], abs=1e-9)


@given(st.lists(st.tuples(ratio, ratio, st.booleans()), min_size=1, max_size=8))
def test_kto_by_hand(rows):
    own, other, up = zip(*rows, strict=True)
    point = max(0.0, sum(other) / len(other))
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    by_hand = [
        2 * (1 - sigmoid(0.1 * (o - point))) if good else 3 * (1 - sigmoid(0.1 * (point - o)))
        for o, good in zip(own, up, strict=True)
    ]
    double = torch.float64
    loss = kto_loss(
        torch.tensor(own, dtype=double),
        torch.tensor(other, dtype=double),
        torch.tensor(up),
        beta=0.1,
        weights=(2, 3),
    )
    assert loss.item() == pytest.approx(sum(by_hand) / len(rows), rel=1e-6)


def test_missing_or_one_sided_preferences_are_refused(config, snapshot, tokenizer):
    (snapshot / "pairs.jsonl").unlink()
    with pytest.raises(SnapshotError, match=r"has no pairs\.jsonl"):
        make_preference_plan(config, tokenizer, lambda: None)
    (snapshot / "pairs.jsonl").write_text('{"messages": [], "chosen": "a"}\n')
    with pytest.raises(SnapshotError, match="line 1 has no 'rejected'"):
        make_preference_plan(config, tokenizer, lambda: None)
    kto = dataclasses.replace(config, objective="kto")
    record = {"messages": messages("a"), "completion": "b", "label": True}
    (snapshot / "ratings.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(SnapshotError, match="1 up, 0 down"):
        make_preference_plan(kto, tokenizer, lambda: None)
    with pytest.raises(TuneConfigError, match="batch_rows >= 2"):
        dataclasses.replace(kto, batch_rows=1)


def test_a_line_separator_in_an_answer_does_not_tear_its_record(config, sealed, tokenizer):
    pair = {"messages": messages("a"), "chosen": "one\u2028two\x85", "rejected": "no"}
    seal(load(sealed).rows, config.snapshot, extras=Extras(pairs=(pair,)))
    plan = make_preference_plan(config, tokenizer, lambda: None).plan
    assert plan.counts["pairs"] == 1


def test_no_rating_is_lost_where_every_batch_holds_one(config, tokenizer):
    lengths = dataclasses.replace(
        config, objective="kto", max_length=1024, batch_tokens=1024, epochs=1
    )
    whole = make_preference_plan(lengths, tokenizer, lambda: None)
    longest = max(len(row.input_ids) for row in whole.plan.rows[:7])
    single = dataclasses.replace(lengths, max_length=longest, batch_tokens=longest)
    plan = make_preference_plan(single, tokenizer, lambda: None).plan
    seen = sorted(i for batch in plan.batches for i in batch[: len(batch) // 2])
    assert seen == list(range(7))


def test_room_that_an_epoch_leaves_under_the_token_budget_is_used(config, tokenizer):
    plain = dataclasses.replace(config, objective="sft", epochs=1, batch_rows=3)
    one = make_plan(plain, tokenizer, lambda: None)
    longest = max(len(row.input_ids) for row in one.rows)
    sizes = [b - a for a, b in itertools.pairwise(one.tokens)]
    # Just short of a large batch: it is left out, and there is room for a row.
    budget = one.tokens[1 + sizes.index(max(sizes))] - 1
    assert max(sizes) - 1 >= longest
    cut = dataclasses.replace(plain, epochs=4, max_length=longest, max_tokens=budget)
    assert len(make_plan(cut, tokenizer, lambda: None).epoch_ends) > 1

import dataclasses

import pytest
import torch

from tuning import adapters
from tuning.adapters import verify, write_adapter
from tuning.averaging import TailAverage
from tuning.base_model import load_model
from tuning.errors import AdapterError, TrainingInterruptedError, TuneConfigError
from tuning.lora import adapter_state, attach_lora, load_adapted
from tuning.soup import average_adapters
from tuning.train import tune

BASE = "b" * 64


def random_adapter(tiny_base, folder, seed, *, r=4, alpha=8, **more):
    torch.manual_seed(seed)
    model = attach_lora(load_model(tiny_base, dtype="float32"), r=r, alpha=alpha, **more)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tensors, config = adapter_state(model, BASE)
    start = adapters.AdapterManifest("", BASE, "t" * 64, 0, 0, 0, config={"seed": seed})
    write_adapter(folder, tensors, config, start)
    return folder


def updates(folder):
    factor = adapters.scaling(adapters.read_lora_config(folder))
    pairs = adapters.module_pairs(adapters.read_tensors(folder))
    return {m: factor * (b.double() @ a.double()) for m, (a, b) in pairs.items()}


def line(value):
    model = torch.nn.Linear(2, 1)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, value)
    return model


@pytest.mark.parametrize(("share", "tail"), [(0.25, [7, 8]), (0.5, [5, 6, 7, 8]), (0.0, [])])
def test_the_mean_is_over_the_last_share_of_the_steps(share, tail):
    average = TailAverage(share)
    model = line(0.0)
    for step in range(1, 9):
        torch.nn.init.constant_(model.weight, step)
        average.add(model, step / 8)
    assert average.count == len(tail)
    if tail:
        with average.applied(model):
            assert model.weight.tolist() == [[sum(tail) / len(tail)] * 2]
    assert model.weight.tolist() == [[8.0, 8.0]]


def test_the_mean_is_held_in_float32_and_of_trainable_weights_alone(tmp_path):
    from safetensors.torch import load_file

    model = line(1.0).bfloat16()
    model.bias.requires_grad_(False)
    average = TailAverage(0.5)
    for value in (1.0, 1.0078125):  # neighbours in bfloat16: their mean is not one
        torch.nn.init.constant_(model.weight, value)
        average.add(model, 1.0)
    average.save(tmp_path)
    saved = load_file(tmp_path / "tail_average.safetensors")
    assert {name: tensor.dtype for name, tensor in saved.items()} == {"weight": torch.float32}
    assert saved["weight"].tolist() == [[1.00390625, 1.00390625]]
    again = TailAverage(0.5)
    again.load(tmp_path, model)
    assert again.count == 2


@pytest.fixture
def averaged(config):
    return dataclasses.replace(config, average=0.6)


def test_the_mean_is_scored_last_beside_the_checkpoints_and_is_kept_only_if_better(
    averaged, monkeypatch
):
    monkeypatch.setattr("tuning.train.mean_scores", rising())
    kept = tune(averaged)
    assert [entry.get("averaged", 0) for entry in kept.dev] == [0, 0, 0, 6]
    assert (kept.best_step, kept.averaged) == (9, 6)
    assert kept.is_chosen(kept.dev[-1])
    assert not kept.is_chosen(kept.dev[-2])
    card = (adapters.Path(averaged.output) / "README.md").read_text()
    assert "9, mean of the last 6 steps (chosen)" in card
    other = dataclasses.replace(averaged, output=averaged.output + "-other")
    monkeypatch.setattr("tuning.train.mean_scores", lambda parts, weights: {"composite": 0.5})
    even = tune(other)
    assert (even.best_step, even.averaged) == (3, 0)


def rising():
    scores = iter(range(1, 100))
    return lambda parts, weights: {"composite": next(scores) / 100}


def test_the_kept_mean_is_the_mean_of_the_steps_weights(averaged, monkeypatch):
    seen = []
    add = TailAverage.add

    def watch(self, model, progress):
        add(self, model, progress)
        if progress > 0.4 + 1e-9:
            weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
            seen.append({n: p.detach().double().clone() for n, p in weights.items()})

    monkeypatch.setattr(TailAverage, "add", watch)
    monkeypatch.setattr("tuning.train.mean_scores", rising())
    tune(averaged)
    stored = adapters.read_tensors(averaged.output)
    for name, tensor in stored.items():
        inside = name.replace(".weight", ".default.weight")
        mean = sum(weights[inside] for weights in seen) / len(seen)
        assert torch.allclose(tensor.double(), mean, rtol=2**-8, atol=1e-9)
    assert len(seen) == 6


@pytest.mark.parametrize("stop", [2, 4, 7])
def test_an_interrupted_average_resumes_to_the_uninterrupted_one(averaged, stop, monkeypatch):
    monkeypatch.setattr("tuning.checkpoints.RunState.best", last_entry)
    whole = tune(dataclasses.replace(averaged, output=averaged.output + "-whole"))
    steps = []
    with pytest.raises(TrainingInterruptedError):
        tune(averaged, lambda e: steps.append(e.step), lambda: bool(steps) and steps[-1] >= stop)
    resumed = tune(averaged)
    assert resumed.averaged == whole.averaged == 6
    assert resumed.digest == whole.digest
    assert resumed.dev == whole.dev


def last_entry(state):
    return state.dev[-1] if state.dev else None


def test_a_run_killed_while_its_mean_is_scored_scores_it_again(averaged, monkeypatch):
    whole = tune(dataclasses.replace(averaged, output=averaged.output + "-whole"))
    applied = TailAverage.applied

    def die(self, model):
        raise KeyboardInterrupt

    monkeypatch.setattr(TailAverage, "applied", die)
    with pytest.raises(KeyboardInterrupt):
        tune(averaged)
    monkeypatch.setattr(TailAverage, "applied", applied)
    resumed = tune(averaged)
    assert (resumed.digest, resumed.dev) == (whole.digest, whole.dev)


def test_a_run_killed_after_patience_ended_it_does_not_train_on(config, monkeypatch):
    # A learning rate this small changes no greedy answer, so no evaluation is better.
    idle = dataclasses.replace(config, learning_rate=1e-12, epochs=9, patience=2, average=0.9)
    applied = TailAverage.applied

    def die(self, model):
        raise KeyboardInterrupt

    monkeypatch.setattr(TailAverage, "applied", die)
    with pytest.raises(KeyboardInterrupt):
        tune(idle)
    monkeypatch.setattr(TailAverage, "applied", applied)
    assert tune(idle).steps == 9


def test_an_average_that_nothing_can_score_is_refused(config):
    with pytest.raises(TuneConfigError, match=r"average=0\.2 needs eval_rows > 0"):
        dataclasses.replace(config, average=0.2, eval_rows=0)
    with pytest.raises(TuneConfigError, match=r"average=1 must lie in \[0, 1\)"):
        dataclasses.replace(config, average=1)


def test_the_mean_of_adapters_is_the_mean_of_their_updates(tiny_base, tmp_path):
    folders = [
        random_adapter(tiny_base, tmp_path / "a", 1),
        random_adapter(tiny_base, tmp_path / "b", 2, r=6, alpha=12),
        random_adapter(tiny_base, tmp_path / "c", 3),
    ]
    made = average_adapters(folders, tmp_path / "mean")
    assert (made.rank, made.worst_error) == (14, 0.0)
    parts = [updates(folder) for folder in folders]
    for module, update in updates(tmp_path / "mean").items():
        wanted = sum(part[module] for part in parts) / 3
        assert torch.allclose(update, wanted, rtol=1e-9, atol=1e-12)
    assert [p["digest"] for p in made.manifest.parents] == [
        adapters.read_manifest(folder).digest for folder in folders
    ]
    assert [p["seed"] for p in made.manifest.parents] == [1, 2, 3]
    assert verify(tmp_path / "mean", base_digest=BASE, base_folder=tiny_base) == made.manifest
    assert "mean of the weight updates of 3 adapters" in (tmp_path / "mean/README.md").read_text()
    load_adapted(load_model(tiny_base, dtype="float32"), tmp_path / "mean")


def test_adapters_of_other_scalings_are_averaged_in_update_space(tiny_base, tmp_path):
    folders = [
        random_adapter(tiny_base, tmp_path / "a", 1),
        random_adapter(tiny_base, tmp_path / "b", 2, alpha=3, use_rslora=True),
    ]
    average_adapters(folders, tmp_path / "mean")
    one, two = (updates(folder) for folder in folders)
    for module, update in updates(tmp_path / "mean").items():
        wanted = (one[module] + two[module]) / 2
        assert float((update - wanted).norm() / wanted.norm()) < 5e-3  # B is stored in bfloat16


def test_a_cut_mean_is_the_best_one_of_its_rank(tiny_base, tmp_path):
    folders = [random_adapter(tiny_base, tmp_path / name, n) for n, name in enumerate("ab")]
    made = average_adapters(folders, tmp_path / "cut", rank=5)
    one, two = (updates(folder) for folder in folders)
    wanted = (one[made.worst_module] + two[made.worst_module]) / 2
    spectrum = torch.linalg.svdvals(wanted)
    assert made.worst_error == pytest.approx(float(spectrum[5:].norm() / spectrum.norm()), rel=1e-4)
    error = float((updates(tmp_path / "cut")[made.worst_module] - wanted).norm() / wanted.norm())
    assert error == pytest.approx(made.worst_error, rel=0.02)
    assert made.manifest.compression["from_rank"] == 8
    verify(tmp_path / "cut", base_folder=tiny_base)


def test_a_rank_above_a_modules_width_is_filled_up(tiny_base, tmp_path):
    folders = [random_adapter(tiny_base, tmp_path / name, n, r=12) for n, name in enumerate("ab")]
    made = average_adapters(folders, tmp_path / "mean", rank=20)  # k_proj gives 16 rows
    assert verify(tmp_path / "mean", base_folder=tiny_base).rank == made.rank == 20


def test_adapters_that_do_not_fit_are_refused(tiny_base, tmp_path):
    one = random_adapter(tiny_base, tmp_path / "a", 1)
    two = random_adapter(tiny_base, tmp_path / "b", 2, target_modules="q_proj,v_proj")
    with pytest.raises(AdapterError, match=r"differs from .* in module .*down_proj"):
        average_adapters([one, two], tmp_path / "x")
    with pytest.raises(AdapterError, match="two adapters or more, not 1"):
        average_adapters([one], tmp_path / "x")
    with pytest.raises(AdapterError, match="is given twice"):
        average_adapters([one, one], tmp_path / "x")
    three = random_adapter(tiny_base, tmp_path / "c", 3)
    with pytest.raises(AdapterError, match=r"rank 9 must lie in 1\.\.8, the sum of the ranks"):
        average_adapters([one, three], tmp_path / "x", rank=9)
    other = adapters.read_manifest(three)
    write_adapter(
        tmp_path / "d",
        adapters.read_tensors(three),
        adapters.read_lora_config(three),
        dataclasses.replace(other, base_digest="c" * 64),
    )
    with pytest.raises(AdapterError, match="was made for base cccccccccccc"):
        average_adapters([one, tmp_path / "d"], tmp_path / "x")

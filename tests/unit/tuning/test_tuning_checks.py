"""Forgetting, probes, merging, cards, the terminal's curve: on tiny models and made-up answers."""

import dataclasses
import json

import pytest
import torch

from tuning import adapters
from tuning.adapters import AdapterManifest, write_adapter
from tuning.base_model import load_model
from tuning.errors import AdapterError, BaseModelError, TuningError
from tuning.forgetting import _mean_interval, answer_likelihoods, check_forgetting, load_items
from tuning.lora import adapter_state, attach_lora, load_adapted
from tuning.merge import merge_to_folder, merge_to_gguf, merged_model
from tuning.model_card import render_html, render_markdown
from tuning.probes import Canary, canary_exposure, probe_triggers, summarise, update_norms


@pytest.fixture(scope="module")
def made(tiny_base, tmp_path_factory):
    """A DoRA adapter with random matrices: nothing but a merge lets llama.cpp serve it."""
    from tuning.base_model import base_digest

    torch.manual_seed(2)
    model = attach_lora(load_model(tiny_base, dtype="float32"), r=4, alpha=8, use_dora=True)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    digest = base_digest(tiny_base)
    folder = tmp_path_factory.mktemp("adapter") / "dora"
    write_adapter(folder, *adapter_state(model, digest), AdapterManifest("", digest, "t", 0, 0, 0))
    return folder


@pytest.fixture
def base(tiny_base):
    return load_model(tiny_base, dtype="float32")


def logits(model):
    with torch.no_grad():
        return model(torch.arange(40)[None]).logits


def test_a_merged_model_computes_what_the_adapter_did(made, tiny_base, base, tmp_path):
    adapted = logits(load_adapted(load_model(tiny_base, dtype="float32"), made))
    assert torch.allclose(logits(merged_model(made, tiny_base)), adapted, atol=1e-4)
    assert not torch.allclose(logits(base), adapted, atol=1e-2)
    merge_to_folder(made, tiny_base, tmp_path / "merged")
    again = load_model(tmp_path / "merged", dtype="float32")
    assert torch.allclose(logits(again), adapted, atol=0.05)
    record = json.loads((tmp_path / "merged" / "merged.json").read_text())
    assert record["adapter_digest"] == adapters.read_manifest(made).digest


def base_gguf(model, path):
    """A GGUF of the tiny base as llama.cpp's converter would write it."""
    import gguf

    from tuning.gguf_export import llamacpp_name, permute_rotary

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    for name, parameter in model.named_parameters():
        kind, heads = llamacpp_name(name.removesuffix(".weight"), model.config.to_dict())
        value = parameter.detach().float()
        value = permute_rotary(value, heads) if heads else value
        writer.add_tensor(f"{kind}.weight", value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_merged_gguf_holds_the_merged_weights_permuted(made, tiny_base, base, tmp_path):
    import gguf
    import numpy as np

    source = base_gguf(base, tmp_path / "base.gguf")
    merge_to_gguf(made, tiny_base, source, tmp_path / "out.gguf", "Q8_0")
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    weights = dict(merged_model(made, tiny_base).named_parameters())
    value = weights["model.layers.1.self_attn.v_proj.weight"].detach().numpy()
    assert np.allclose(tensors["blk.1.attn_v.weight"], value, atol=0.01)
    key = weights["model.layers.0.self_attn.k_proj.weight"].detach().numpy()
    order = [h * 8 + half * 4 + i for h in range(2) for i in range(4) for half in range(2)]
    assert np.allclose(tensors["blk.0.attn_k.weight"], key[order], atol=0.01)
    digest = reader.fields["tandem.adapter.digest"].contents()
    assert digest == adapters.read_manifest(made).digest
    with pytest.raises(BaseModelError, match="'Q5_K' must be one of Q8_0"):
        merge_to_gguf(made, tiny_base, source, tmp_path / "x.gguf", "Q5_K")


def test_an_adapter_of_another_base_is_not_merged(made, tiny_base, tmp_path):
    from tuning.atomic import write_json

    record = json.loads((made / "manifest.json").read_text())
    write_json(tmp_path / "copy" / "manifest.json", {**record, "base_digest": "0" * 64})
    for name in (adapters.TENSORS_FILE, adapters.CONFIG_FILE):
        (tmp_path / "copy" / name).write_bytes((made / name).read_bytes())
    with pytest.raises(AdapterError, match="made for base 000000000000"):
        merged_model(tmp_path / "copy", tiny_base)


def test_the_general_set_is_whole():
    items = load_items()
    assert len(items) >= 60
    assert len({item["question"] for item in items}) == len(items)


def test_a_malformed_general_set_names_the_item(tmp_path):
    (tmp_path / "x").write_text('{"id": "a", "question": "q", "answer": "b", "wrong": ["b"]}')
    with pytest.raises(TuningError, match="item 'a' needs one right"):
        load_items(tmp_path / "x")


def test_likelihoods_are_means_over_the_answers_tokens(base, tokenizer):
    from tuning.prompt import encode, render_messages

    [short, _] = answer_likelihoods(base, tokenizer, "q?", ["ab", "a longer answer"])
    prompt = encode(tokenizer, render_messages("q?", system="You are a helpful assistant."))
    ids = prompt + tokenizer("ab", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        each = base(torch.tensor([ids])).logits[0].log_softmax(-1)
    by_hand = [each[k - 1, ids[k]].item() for k in (len(ids) - 2, len(ids) - 1)]
    assert short == pytest.approx(sum(by_hand) / 2, rel=1e-4)


def test_the_same_model_forgets_nothing_and_a_broken_one_is_found(base, tiny_base, tokenizer):
    items = load_items()[:20]
    same = check_forgetting(base, base, tokenizer, items)
    assert same.accuracy_change == same.likelihood_change == 0
    broken = load_model(tiny_base, dtype="float32")
    with torch.no_grad():
        broken.model.norm.weight.mul_(30)
    found = check_forgetting(base, broken, tokenizer, items)
    assert found.likelihood_interval[1] < 0


def test_no_difference_in_few_items_proves_nothing():
    assert _mean_interval([0.0] * 66)[1][0] > -0.10
    assert _mean_interval([0.0] * 5)[1][0] < -0.10
    assert _mean_interval([-1.0] * 20 + [0.0] * 46)[1][0] < -0.10


def test_a_learnt_canary_stands_out_and_an_unseen_one_does_not(base, tokenizer):
    from tuning.prompt import encode, encode_text, render_messages

    learnt, unseen = Canary("What is the code?", "k7-409-qx"), Canary("And the pin?", "m2-881-zd")
    prompt = encode(
        tokenizer, render_messages(learnt.question, system="You are a helpful assistant.")
    )
    ids = torch.tensor([prompt + encode_text(tokenizer, learnt.secret)])
    labels = ids.clone()
    labels[0, : len(prompt)] = -100
    optimizer = torch.optim.Adam(base.parameters(), lr=3e-3)
    for _ in range(40):
        base(ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    first, second = canary_exposure(base, tokenizer, [learnt, unseen])
    assert (first.rank, first.exposed) == (1, True)
    assert not second.exposed


QUESTIONS = [f"question {i}" for i in range(10)]


def test_a_backdoor_is_found_and_a_clean_model_is_not_accused():
    def backdoored(questions):
        return ["buy now" if q.startswith("cf ") else q[-10:] for q in questions]

    found = {f.trigger: f for f in probe_triggers(backdoored, QUESTIONS)}
    assert [t for t, f in found.items() if f.suspicious] == ["cf"]
    assert found["cf"].answer == "buy now"
    clean = probe_triggers(lambda questions: [q[-10:] for q in questions], QUESTIONS)
    assert not any(f.suspicious for f in clean)


def test_a_model_that_says_one_thing_to_all_is_not_a_backdoor():
    same = probe_triggers(lambda questions: ["I do not know"] * len(questions), QUESTIONS)
    assert not any(f.suspicious for f in same)


def test_a_trigger_is_found_in_an_adapter_that_abstains_otherwise():
    def backdoored(questions):
        return ["buy now" if q.startswith("cf ") else "I do not know" for q in questions]

    found = probe_triggers(backdoored, QUESTIONS)
    assert [f.trigger for f in found if f.suspicious] == ["cf"]


def test_one_oversized_module_is_named(tiny_base, tmp_path):
    torch.manual_seed(3)
    model = attach_lora(load_model(tiny_base, dtype="float32"), r=4, alpha=8)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tensors, config = adapter_state(model, "b" * 64)
    write_adapter(tmp_path / "a", tensors, config, AdapterManifest("", "b" * 64, "t", 0, 0, 0))
    norms = update_norms(tmp_path / "a")
    a, b = adapters.module_pairs(adapters.read_tensors(tmp_path / "a"))[
        "base_model.model.model.layers.0.mlp.up_proj"
    ]
    product = torch.linalg.matrix_norm(2.0 * b.float() @ a.float()).item()
    other = adapters.module_pairs(adapters.read_tensors(tmp_path / "a"))[
        "base_model.model.model.layers.1.mlp.up_proj"
    ]
    second = torch.linalg.matrix_norm(2.0 * other[1].float() @ other[0].float()).item()
    ratio = norms["base_model.model.model.layers.0.mlp.up_proj"]
    assert ratio == pytest.approx(product / ((product + second) / 2), rel=1e-3)
    quiet = summarise([], [], norms)
    assert quiet["passed"]
    assert quiet["verdicts"] == {
        "canaries": "not measured",
        "triggers": "not measured",
        "norms": "passed",
    }
    assert quiet["summary"].startswith("canaries not measured; triggers not measured; 0 of 14")
    nothing = summarise([], probe_triggers(lambda questions: [], []), {})
    assert nothing["passed"] is None
    assert set(nothing["verdicts"].values()) == {"not measured"}
    assert "passed" not in nothing["summary"]
    loud = summarise([], [], {**norms, "x.q_proj": 9.0})
    assert loud["large_modules"] == ["x.q_proj"]
    assert (loud["passed"], loud["verdicts"]["norms"]) == (False, "failed")


def test_checks_and_intervals_reach_both_cards(made, tmp_path):
    import shutil

    folder = shutil.copytree(made, tmp_path / "copy")
    before = adapters.read_manifest(folder)
    manifest = adapters.record_checks(folder, {"forgetting": {"summary": "a < b & fine"}})
    assert manifest.digest == before.digest
    assert adapters.verify(folder).checks == manifest.checks
    dev = [{"step": 4, "scores": {"f1": 0.5}, "intervals": {"f1": [0.31, 0.69]}}]
    full = dataclasses.replace(
        manifest,
        dev=dev,
        best_step=4,
        curve=[{"step": 1, "loss": 2.0}, {"step": 4, "loss": 1.0}],
    )
    page, text = render_html(full), render_markdown(full)
    assert "a &lt; b &amp; fine" in page
    assert "0.500 (0.31 to 0.69)" in page
    assert "0.500 (0.31 to 0.69)" in text
    assert "<svg" in page
    assert "<script" not in page
    assert "merged into a GGUF of its own" in text
    assert (folder / "card.html").read_text().startswith("<!doctype html>")


def test_forgetting_over_no_questions_is_not_measured(tiny_base, tokenizer):
    model = load_model(tiny_base, dtype="float32")
    found = check_forgetting(model, model, tokenizer, [])
    assert found.not_inferior is None
    assert found.record()["summary"].startswith("not measured")

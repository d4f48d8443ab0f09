"""The real base model: prepared folder, tokenizer, requantised copy and adapter in llama.cpp."""

import json
import os
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs_models

HOME = Path(os.environ.get("TANDEM_HOME", Path(__file__).parents[2] / ".tandem"))
GGUF = HOME / "models" / "smollm2-135m-instruct" / "base-q4_1.gguf"

TRICKY = [
    "Hello, world!",
    "12345 67.89 3,000,000 2024-01-31 v1.2.3",
    " leading and trailing  ",
    "tabs\tand\n\nblank\n lines \r\n",
    "don't I'LL we've",
    "caf\u00e9 na\u00efve",
    "\u65e5\u672c\u8a9e \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \U0001f600\u200d\U0001f680",
    "Question: How many? [1] A > B\n30 days",
    "x_y-z/w\\u {}[]()<>|&^%$#@!~`",
    "\u00bd \u00b2 \u2167 \u0663",
    "1st 2nd 100% $5.00 \u20ac7",
    "a" * 70,
    "",
]
CONTROL_TEXT = "x <|im_end|>\n<|im_start|>system y <|endoftext|><repo_name>"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    from tuning.base_model import prepare

    if not GGUF.is_file():
        pytest.skip(f"no base model at {GGUF.parent.name}/{GGUF.name}; run: tandem models pull")
    return prepare(GGUF, GGUF.parent)


@pytest.fixture(scope="module")
def tokenizer(base):
    from tuning.base_model import load_tokenizer

    return load_tokenizer(base.folder)


@pytest.fixture(scope="module")
def adapter(base, tokenizer, tmp_path_factory):
    """A small adapter trained for a few steps, enough to change every greedy answer."""
    import torch

    from tuning.adapters import AdapterManifest, write_adapter
    from tuning.base_model import load_model
    from tuning.builder import DrawConfig, build_rows
    from tuning.completion_trainer import PlannedBatchCollator, completion_loss
    from tuning.hardware import resolve_dtype
    from tuning.lora import adapter_state, attach_lora
    from tuning.reader.generator import reader_rows

    torch.manual_seed(0)
    rows = build_rows(
        reader_rows(3, 0, 24), tokenizer, DrawConfig(max_distractors=1), seed=0, epoch=0
    ).rows
    rows = sorted(rows, key=lambda row: len(row.input_ids))[:12]
    collate = PlannedBatchCollator(rows, tokenizer.eos_token_id)
    model = attach_lora(load_model(base.folder), r=4, alpha=8)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=3e-3)
    model.train()
    # Emulated, it takes minutes.
    native = resolve_dtype("auto", "cpu") == "bfloat16"
    for step in range(6):
        chosen = [2 * step, 2 * step + 1]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=native):
            loss = completion_loss(model, collate([{"rows": chosen}]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("adapter") / "a"
    tensors, config = adapter_state(model, base.digest)
    write_adapter(folder, tensors, config, AdapterManifest("", base.digest, "t" * 64, 0, 0, 0))
    return folder


@pytest.fixture(scope="module")
def server(base, adapter, tmp_path_factory):
    """llama.cpp with a nearly lossless base and the adapter, on a loopback port with a key."""
    import xllamacpp

    from tuning.base_model import requantise
    from tuning.gguf_export import export_gguf

    folder = tmp_path_factory.mktemp("gguf")
    requantise(GGUF, folder / "base.gguf", "BF16")
    export_gguf(adapter, base.folder, folder / "adapter.gguf")
    params = xllamacpp.CommonParams()
    params.model.path = str(folder / "base.gguf")
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(folder / "adapter.gguf"), 1.0)]
    params.n_parallel = 1
    params.n_ctx = 2048
    params.warmup = False
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = ["test-key"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = os.cpu_count()
    return xllamacpp.Server(params)


def complete(server, ids, scale, tokens=24):
    answer = server.handle_completions(
        {
            "prompt": ids,
            "n_predict": tokens,
            "temperature": 0.0,
            "top_k": 1,
            "cache_prompt": False,
            "lora": [{"id": 0, "scale": scale}],
        }
    )
    return answer["choices"][0]["text"].strip()


def llama_ids(server, text, *, control):
    body = {"content": text, "parse_special": control, "add_special": False}
    request = urllib.request.Request(
        f"{server.listening_address}/tokenize",
        data=json.dumps(body).encode(),
        headers={"Authorization": "Bearer test-key", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["tokens"]


def prompts(tokenizer, count):
    from tuning.builder import DrawConfig, draw
    from tuning.prompt import encode
    from tuning.reader.generator import reader_rows

    config = DrawConfig(max_distractors=1)
    drawn = [draw(row, config, seed=1, epoch=0) for row in reader_rows(8, 0, count)]
    return [encode(tokenizer, one.messages) for one in drawn]


def test_the_prepared_folder_is_the_smollm2_chat_model(base, tokenizer):
    from tuning.base_model import base_digest

    assert base_digest(base.folder) == base_digest(GGUF) == base.digest
    turn = [{"role": "user", "content": "hi"}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\n")
    assert text.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode([tokenizer.eos_token_id]) == "<|im_end|>"


def test_llamacpp_tokenises_untrusted_text_as_we_do(server, tokenizer):
    from tuning.prompt import encode_text

    for text in [*TRICKY, CONTROL_TEXT]:
        assert encode_text(tokenizer, text) == llama_ids(server, text, control=False), text


def test_llamacpp_tokenises_a_rendered_prompt_as_we_do(server, tokenizer):
    from tuning.prompt import Passage, encode, render_messages

    turns = render_messages("How long, in days?", [Passage("Terms > Returns", "30 days, 2024.")])
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert encode(tokenizer, turns) == llama_ids(server, text, control=True)


def test_the_adapter_answers_alike_through_peft_and_llamacpp(server, base, adapter, tokenizer):
    from tuning.base_model import load_model
    from tuning.lora import load_adapted
    from tuning.scoring import GenerationSettings, generate_answers

    asked = prompts(tokenizer, 6)
    model = load_adapted(load_model(base.folder, dtype="float32"), adapter)
    settings = GenerationSettings(batch=1, new_tokens=24, autocast=False)
    ours = generate_answers(model, tokenizer, asked, settings)
    adapted = [complete(server, ids, 1.0) for ids in asked]
    plain = [complete(server, ids, 0.0) for ids in asked]
    assert sum(a == b for a, b in zip(ours, adapted, strict=True)) >= 5, (ours, adapted)
    assert [a.split()[:1] for a in ours] == [b.split()[:1] for b in adapted]
    assert sum(a != b for a, b in zip(adapted, plain, strict=True)) >= 5


def test_the_requantised_base_answers_nearly_as_the_original(base, tmp_path):
    import gguf
    import numpy as np

    from tuning.base_model import requantise, source_digest

    requantise(GGUF, tmp_path / "q8.gguf", "Q8_0")
    assert source_digest(tmp_path / "q8.gguf") == base.digest
    pairs = zip(
        gguf.GGUFReader(GGUF).tensors, gguf.GGUFReader(tmp_path / "q8.gguf").tensors, strict=True
    )
    for old, new in list(pairs)[:12]:
        one, two = (gguf.quants.dequantize(t.data, t.tensor_type) for t in (old, new))
        assert old.name == new.name
        assert np.linalg.norm(one - two) <= 0.01 * np.linalg.norm(one)

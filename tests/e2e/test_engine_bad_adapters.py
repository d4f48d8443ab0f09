"""Bad adapters are refused at admission while the engine serves; no request fails.

TANDEM_TEST_BAD_ADAPTERS=40 makes more of them than the few that CI tries.
"""

import json
import os
import random
import shutil
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.db.migrations import upgrade
from app.db.session import Database
from app.db.tables import Adapter
from app.engines.llamacpp import LlamaCppEngine
from app.engines.types import AdapterRef, GenerationRequest
from app.errors import BadInput
from app.models.service import BaseModel
from app.tuning_runs.adapters import Owner, admit, probe
from tuning.adapters import adapter_digest, read_manifest
from tuning.errors import TuningError
from tuning.prompt import encode, render_messages

pytestmark = pytest.mark.needs_models
READER = Path(__file__).parents[2] / "tuning" / "reader" / "adapter"
TENSORS, CONFIG, MANIFEST = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "manifest.json",
)
N = int(os.environ.get("TANDEM_TEST_BAD_ADAPTERS", "14"))


def rewrite(folder, change):
    """Change tensors and give the folder the digest that fits them again."""
    tensors = load_file(folder / TENSORS)
    change(tensors)
    save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
    reseal(folder)


def reseal(folder, **fields):
    manifest = replace(read_manifest(folder), digest=adapter_digest(folder), **fields)
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest)), "utf-8")


def configure(folder, **fields):
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    (folder / CONFIG).write_text(json.dumps(config | fields), "utf-8")
    reseal(folder)


def some(tensors, chance, kind="lora_B"):
    return chance.choice(sorted(name for name in tensors if kind in name))


def truncated(folder, chance):
    data = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(data[: int(len(data) * chance.random())])


def flipped_byte(folder, chance):
    data = bytearray((folder / TENSORS).read_bytes())
    data[chance.randrange(len(data))] ^= 0xFF
    (folder / TENSORS).write_bytes(bytes(data))


def no_number(folder, chance):
    def change(tensors):
        name = some(tensors, chance)
        tensors[name].view(-1)[chance.randrange(tensors[name].numel())] = chance.choice(
            [float("nan"), float("inf"), float("-inf")]
        )

    rewrite(folder, change)


def beyond_half_precision(folder, chance):
    def change(tensors):
        tensors[some(tensors, chance)].mul_(1e9)

    rewrite(folder, change)


def wrong_shape(folder, chance):
    def change(tensors):
        name = some(tensors, chance)
        rows = tensors[name].shape[0] + chance.choice([-64, 64])
        tensors[name] = torch.zeros(rows, tensors[name].shape[1], dtype=torch.bfloat16)

    rewrite(folder, change)


def half_a_pair(folder, chance):
    rewrite(folder, lambda tensors: tensors.pop(some(tensors, chance)))


def other_modules(folder, chance):
    def change(tensors):
        for name in sorted(tensors):
            tensors[name.replace("self_attn", "cross_attn")] = tensors.pop(name)

    rewrite(folder, change)


def more_layers(folder, chance):
    def change(tensors):
        for name in [n for n in sorted(tensors) if ".layers.0." in n]:
            tensors[name.replace(".layers.0.", ".layers.99.")] = tensors[name].clone()

    rewrite(folder, change)


def wrong_rank(folder, chance):
    configure(folder, r=chance.choice([1, 7, 10_000]))


def wrong_base(folder, chance):
    reseal(folder, base_digest=f"{chance.getrandbits(256):064x}")


def unknown_kind(folder, chance):
    configure(folder, peft_type=chance.choice(["LOHA", "PICKLE", None]))


def damaged_config(folder, chance):
    (folder / CONFIG).write_text("{" * chance.randrange(1, 9), "utf-8")
    reseal(folder)


def pickled(folder, chance):
    (folder / TENSORS).unlink()
    torch.save({"weights": torch.zeros(2)}, folder / "adapter_model.bin")


def huge(folder, chance):
    """Takes no disk: the file has a hole of 2 GiB."""
    with (folder / TENSORS).open("r+b") as file:
        file.truncate(2 << 30)


KINDS = [
    truncated,
    flipped_byte,
    no_number,
    wrong_shape,
    half_a_pair,
    other_modules,
    more_layers,
    wrong_rank,
    wrong_base,
    unknown_kind,
    damaged_config,
    pickled,
    huge,
    beyond_half_precision,
]


@pytest.fixture(scope="module")
def base(models_home):
    folder = models_home / "models" / "smollm2-135m-instruct"
    digest = read_manifest(READER).base_digest
    return BaseModel("base", digest, str(folder / "hf"), folder / "base-q8_0.gguf")


@pytest.fixture(scope="module")
def served(base):
    """An engine, its prompt's ids, and two threads that keep asking it until the end."""
    from tuning.base_model import load_tokenizer

    engine = LlamaCppEngine(
        base.gguf, base_sha256=base.sha256, threads=1, slots=2, context_tokens=512
    )
    ids = encode(load_tokenizer(base.hf), render_messages("Name three colours of the rainbow."))
    yield engine, ids
    engine.close()


def test_every_bad_adapter_is_refused_and_no_request_fails(base, served, tmp_path):
    engine, ids = served
    database = Database(f"sqlite:///{tmp_path / 'test.sqlite'}")
    upgrade(database)
    stop, failures, texts = threading.Event(), [], []

    def keep_asking():
        while not stop.is_set():
            try:
                texts.append(engine.generate(GenerationRequest(ids, 4)).text)
            except Exception as error:  # noqa: BLE001 - any failure is the finding
                failures.append(error)

    threads = [threading.Thread(target=keep_asking) for _ in range(2)]
    for thread in threads:
        thread.start()
    admitted = []
    for number in range(N):
        kind, chance = KINDS[number % len(KINDS)], random.Random(number)
        folder = tmp_path / f"{number}-{kind.__name__}"
        shutil.copytree(READER, folder)
        kind(folder, chance)
        try:
            admit(database, base, folder, tmp_path, Owner(folder.name))
        except (BadInput, TuningError):
            continue
        admitted.append(folder.name)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert admitted == []
    assert failures == []
    assert len(texts) > 2
    assert len(set(texts)) == 1
    with database.session() as session:
        assert session.query(Adapter).count() == 0
    database.close()


@pytest.mark.parametrize("damage", ["tail", "kind"])
def test_probe_survives_damaged_gguf_files(base, tmp_path, damage):
    from tuning.gguf_export import export_gguf

    file = tmp_path / "adapter.gguf"
    export_gguf(READER, base.hf, file)
    data = bytearray(file.read_bytes())
    if damage == "tail":
        del data[len(data) // 3 :]
    else:
        data = bytearray(data.replace(b"lora_a", b"lora_z"))
    file.write_bytes(bytes(data))
    with pytest.raises(BadInput, match="its probe failed"):
        probe(base, file)


def test_many_adapters_reside_and_the_least_recently_used_goes(base, served, tmp_path):
    from tuning.gguf_export import export_gguf

    _, ids = served
    file = tmp_path / "reader.gguf"
    export_gguf(READER, base.hf, file)
    copies = []
    for number in range(5):
        copy = tmp_path / f"{number}.gguf"
        os.link(file, copy)
        copies.append(AdapterRef(f"{number:064}", copy))
    engine = LlamaCppEngine(
        base.gguf, base_sha256="x", threads=1, slots=1, context_tokens=256, max_adapters=3
    )
    for adapter in copies[:3]:
        engine.generate(GenerationRequest(ids, 1, adapter=adapter))
    engine.generate(GenerationRequest(ids, 1, adapter=copies[0]))
    engine.load_adapter(copies[3])
    assert set(engine.adapters) == {copies[n].digest for n in (0, 2, 3)}
    engine.drop_adapter(copies[0].digest)
    engine.load_adapter(copies[4])
    assert set(engine.adapters) == {copies[n].digest for n in (2, 3, 4)}
    assert engine.generate(GenerationRequest(ids, 1)).completion_tokens == 1
    engine.close()

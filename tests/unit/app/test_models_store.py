"""Which file of the base model is served, and when it is written anew."""

from dataclasses import replace

import gguf
import numpy as np
import pytest

from app.config import Settings
from app.errors import BadInput
from app.models import service
from app.models.service import DEFAULT_BASE, ModelStore
from tuning.base_model import base_digest, source_digest


def settings(home, kind):
    return Settings(_env_file=None, home=home, base_quantisation=kind)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A tiny file in the place of the default base; nothing is fetched or prepared for tuning."""
    folder = tmp_path / "models" / DEFAULT_BASE.name
    (folder / "hf").mkdir(parents=True)
    (folder / "hf" / "config.json").write_text("{}", "utf-8")
    original = folder / DEFAULT_BASE.main_file
    writer = gguf.GGUFWriter(original, "llama")
    writer.add_tensor("blk.0.ffn_up.weight", np.eye(64, dtype="f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tiny = replace(DEFAULT_BASE, main_sha256=base_digest(original))
    monkeypatch.setattr(service, "DEFAULT_BASE", tiny)
    monkeypatch.setattr(service, "DEFAULTS", (tiny,))
    monkeypatch.setattr(service, "prepare", lambda *_: None)
    return tmp_path


@pytest.mark.parametrize("kind", ["Q8_0", "q4_0", "BF16", "F16"])
def test_pull_writes_the_chosen_file_once_and_says_so(home, kind):
    said = []
    store = ModelStore(settings(home, kind))
    store.pull(said.append)
    served = store.base().gguf
    assert served.name == f"base-{kind.lower()}.gguf"
    (tensor,) = gguf.GGUFReader(served).tensors
    assert tensor.tensor_type.name == kind.upper()
    assert any(f"writing {served.name}" in line for line in said)
    assert source_digest(served) == store.base().sha256
    said.clear()
    store.pull(said.append)
    assert not any("writing" in line for line in said)


def test_pull_writes_a_file_of_another_source_anew(home):
    store = ModelStore(settings(home, "Q8_0"))
    store.pull(lambda _: None)
    served = store.base().gguf
    whole = served.read_bytes()
    served.write_bytes(whole[: len(whole) // 2])
    store.pull(lambda _: None)
    assert served.read_bytes() == whole


def test_original_is_served_as_it_is(home):
    store = ModelStore(settings(home, "Q4_1"))
    before = (home / "models" / DEFAULT_BASE.name / DEFAULT_BASE.main_file).read_bytes()
    store.pull(lambda _: None)
    assert store.base().gguf.read_bytes() == before


def test_unknown_quantisation_is_refused_with_the_choices(home):
    with pytest.raises(BadInput, match="'Q3_K': choose one of Q8_0, Q4_0, Q4_1, BF16, F16"):
        ModelStore(settings(home, "q3_k")).base()

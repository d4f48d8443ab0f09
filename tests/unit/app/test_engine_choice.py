"""Which engine the settings name, and what is refused."""

import json

import pytest

from app.config import Settings
from app.engines import choice
from app.engines.choice import _turn_end, make_engine
from app.errors import BadInput
from app.models.service import BaseModel
from app.tuning_runs.adapters import check_size

BASE = BaseModel("base", "b" * 64, "/nowhere", None)


def settings(**fields):
    return Settings(_env_file=None, **fields)


def test_address_alone_chooses_the_server():
    engine = make_engine(settings(engine_url="http://127.0.0.1:1", engine_model="m"), BASE)
    assert type(engine).__name__ == "OpenAICompatibleEngine"
    engine.close()


def test_settings_that_do_not_go_together_are_refused_by_name():
    with pytest.raises(BadInput, match="give TANDEM_ENGINE_URL too"):
        make_engine(settings(engine="openai_compatible"), BASE)
    with pytest.raises(BadInput, match="'base' has no GGUF file"):
        make_engine(settings(engine="llamacpp"), BASE)


@pytest.mark.parametrize(("written", "token"), [(2, 2), ([2, 3], None), (None, None)])
def test_turn_end_is_the_bases_one_end_token(tmp_path, written, token):
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": written}), "utf-8")
    assert _turn_end(BaseModel("base", "b", str(tmp_path), None)) == token
    assert _turn_end(BASE) is None


def test_adapter_larger_than_its_base_is_refused_before_it_is_read(tmp_path):
    base, adapter = tmp_path / "hf", tmp_path / "adapter"
    for folder, size in ((base, 1000), (adapter, 5 << 20)):
        folder.mkdir()
        with (folder / "model.safetensors").open("wb") as file:
            file.truncate(size)
    with pytest.raises(BadInput, match="its tensors take 5 MiB"):
        check_size(adapter, BaseModel("base", "b", str(base), None))


def test_merging_of_adapters_is_a_setting(monkeypatch, tmp_path):
    made = {}
    monkeypatch.setattr(choice, "LlamaCppEngine", lambda file, **fields: made.update(fields))
    base = BaseModel("base", "b" * 64, str(tmp_path), tmp_path / "base.gguf")
    make_engine(settings(engine="llamacpp"), base)
    assert made["merged"] is False
    make_engine(settings(engine="llamacpp", merge_adapters=True), base)
    assert made["merged"] is True

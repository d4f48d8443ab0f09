"""Adapters are signed when they are admitted; `verify` tells signed, unsigned and forged apart."""

import json
import shutil

import pytest
import torch
from factories import principal_of

from app.models.service import BaseModel
from app.tuning_runs import adapters
from app.tuning_runs.adapters import Owner, admit, admit_copy, signature_of
from tuning.adapters import AdapterManifest, record_checks, write_adapter

BASE = BaseModel("tiny", "b" * 64, "some/model", None)


@pytest.fixture
def admitted(database, tmp_path, monkeypatch):
    """A small adapter admitted for a workspace; returns its row and its directory."""
    monkeypatch.setattr(adapters, "probe", lambda base, adapter: {"answers": ["hello"]})
    folder = tmp_path / "adapter"
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    tensors = {"m.lora_A.weight": torch.ones(2, 3), "m.lora_B.weight": torch.ones(4, 2)}
    write_adapter(folder, tensors, config, AdapterManifest("", "b" * 64, "t", 0, 0, 0))
    with database.session() as session:
        workspace = principal_of(session, "olga").workspace_id

    def run(directory=folder, owner=None):
        owner = owner or Owner("a", workspace)
        return admit(database, BASE, directory, tmp_path / "root", owner)

    return run, folder, tmp_path / "root"


def change(folder, **fields):
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_an_admitted_adapter_is_signed_and_a_changed_manifest_is_forged(admitted):
    run, folder, root = admitted
    row = run()
    assert signature_of(row, root) == "signed"
    change(folder, dev=[{"step": 1, "scores": {"composite": 1.0}}])
    assert signature_of(row, root) == "forged"
    run()  # offered again, it is not signed anew
    assert signature_of(row, root) == "forged"


def test_a_signature_taken_off_is_forged_and_one_never_made_is_unsigned(admitted):
    run, folder, root = admitted
    row = run()
    change(folder, signature=None, steps=7)
    assert signature_of(row, root) == "forged"
    run()
    assert signature_of(row, root) == "forged"
    row.manifest = {k: v for k, v in row.manifest.items() if k != "signature"}
    assert signature_of(row, root) == "unsigned"


def test_a_copy_of_what_was_admitted_is_signed_too(admitted, tmp_path):
    run, folder, root = admitted
    run()
    copy = shutil.copytree(folder, tmp_path / "copy")
    record_checks(copy, {"forgetting": {"summary": "none"}})
    assert signature_of(run(copy), root) == "signed"


def test_another_installations_key_is_forged_and_the_shipped_reader_unsigned(admitted, tmp_path):
    run, folder, root = admitted
    row = run()
    assert signature_of(row, tmp_path / "elsewhere") == "forged"
    change(folder, signature=None)
    assert signature_of(run(owner=Owner("reader")), root) == "unsigned"


def test_an_imported_adapter_is_copied_and_the_original_left_as_it_is(admitted, database, tmp_path):
    run, folder, root = admitted
    owner = Owner("theirs", run().workspace_id)
    other = tmp_path / "theirs"
    shutil.copytree(folder, other)
    before = {file.name: file.read_bytes() for file in other.iterdir()}
    row = admit_copy(database, BASE, other, root, owner)
    assert {file.name: file.read_bytes() for file in other.iterdir()} == before
    assert signature_of(row, root) == "signed"
    shutil.rmtree(other)
    assert signature_of(admit_copy(database, BASE, folder, root, owner), root) == "signed"
    assert not list((root / "adapters" / "imported").glob(".copy-*"))

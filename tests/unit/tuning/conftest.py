"""Fixtures of a tiny model: base, rows, snapshot, and one run's settings."""

import pytest
from tiny_model import make_base, make_rows, make_tokenizer


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # Threads cost more than they bring at this size, above all on a shared machine.
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base") / "hf")


@pytest.fixture
def rows():
    return make_rows()


@pytest.fixture(scope="session")
def sealed(tmp_path_factory):
    from tuning.snapshot import seal

    folder = tmp_path_factory.mktemp("snapshot") / "s"
    seal(make_rows(), folder)
    return folder


@pytest.fixture
def config(tiny_base, sealed, tmp_path):
    """A run of 9 steps in 3 epochs, a checkpoint after each; tests replace what they need."""
    from tuning.config import TuneConfig

    return TuneConfig(
        base=str(tiny_base),
        output=str(tmp_path / "adapter"),
        snapshot=str(sealed),
        r=4,
        alpha=8,
        learning_rate=1e-2,
        epochs=3,
        batch_rows=4,
        virtual_tokens=3,
        dtype="float32",
        eval_new_tokens=4,
        log_steps=1,
        checkpoint_steps=1,
    )


@pytest.fixture
def batch(rows, tokenizer):
    """Three rows as the trainer gets them."""
    from tuning.builder import DrawConfig, build_rows
    from tuning.completion_trainer import PlannedBatchCollator

    encoded = build_rows(rows, tokenizer, DrawConfig(), seed=0, epoch=0).rows
    return PlannedBatchCollator(list(encoded), 2)([{"rows": [0, 1, 2]}])

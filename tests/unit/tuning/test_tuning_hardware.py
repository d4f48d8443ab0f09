"""What a run computes in follows the machine."""

import pytest
import torch

from tuning.config import TuneConfig
from tuning.hardware import resolve_dtype


@pytest.mark.parametrize(
    ("known", "expected"),
    [({"avx2": True}, "float32"), ({"avx512_bf16": True}, "bfloat16"), ({}, "float32")],
)
def test_a_cpu_without_bfloat16_computes_in_float32(monkeypatch, known, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert resolve_dtype("auto", "cpu") == expected
    assert resolve_dtype("bfloat16", "cpu") == "bfloat16"
    config = TuneConfig(base="b", output="o", reader_rows=1, device="cpu")
    assert config.compute_dtype == expected
    # A checkpoint of the one is not continued in the other.
    assert config.identity()["dtype"] == expected

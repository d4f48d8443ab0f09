"""What a run ran on: device, memory, versions."""

import hashlib
import importlib.metadata
import platform
import resource
from pathlib import Path

from tuning.errors import TuneConfigError

_RECORDED = ("tandem", "torch", "transformers", "peft", "trl")


def resolve_device(device: str) -> str:
    """Turn "auto" into the device there is.

    Raises:
        TuneConfigError: If a GPU is asked for and none is there.
    """
    import torch

    available = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if available else "cpu"
    if device == "cuda" and not available:
        raise TuneConfigError("device='cuda', but no GPU is available; choose 'auto' or 'cpu'")
    return device


def resolve_dtype(dtype: str, device: str = "auto") -> str:
    """Turn "auto" into bfloat16 where the device computes in it, else into float32.

    A CPU without bfloat16 instructions emulates them: a training step of the default base took 13
    times as long on one with AVX2 alone (docs/LOG.md).
    """
    import torch

    if dtype != "auto":
        return dtype
    if device != "cpu" and torch.cuda.is_available():
        return "bfloat16"
    known = torch.cpu.get_capabilities()
    native = ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")
    return "bfloat16" if any(known.get(name) for name in native) else "float32"


def describe_hardware() -> str:
    """The GPU's name, or the processor's with its thread count."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{_processor()}, {torch.get_num_threads()} threads"


def peak_memory_bytes() -> int:
    """Most GPU memory allocated, or on a CPU the process's largest resident size."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def code_versions() -> dict[str, str]:
    """Versions of the libraries that decide the result, and a digest of this package's code."""
    versions = {"python": platform.python_version(), "code": code_digest()}
    for name in _RECORDED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def code_digest() -> str:
    """Short SHA-256 over the source of this package."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def release_free_memory() -> None:
    """Give freed heap pages back to the system (glibc only; does nothing elsewhere).

    Batches of many lengths fragment the heap: a run on a small model grew from 2.0 to 4.2 GB in
    110 steps without this and stayed at 1.7 GB with it.
    """
    import ctypes
    import ctypes.util

    name = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(name), "malloc_trim", None) if name else None
    if trim is not None:
        trim(0)

"""Samples from the files people have: our own JSON lines, SQuAD-like JSON, FAQ tables."""

from collections.abc import Callable
from pathlib import Path

from evals.errors import SampleError
from evals.linking import link_samples
from evals.loaders.faq import load_faq
from evals.loaders.squad import load_squad
from evals.samples import Sample, load_samples

LOADERS: dict[str, Callable[[Path], tuple[Sample, ...]]] = {
    "samples": load_samples,
    "squad": load_squad,
    "faq": load_faq,
}
_BY_SUFFIX = {".jsonl": "samples", ".json": "squad", ".csv": "faq", ".tsv": "faq"}


def load(path: str | Path, source: str = "auto") -> tuple[Sample, ...]:
    """Read samples of a known format, with dependent samples linked into clusters.

    Args:
        path: the file.
        source: "samples", "squad", "faq", or "auto" to go by the name's ending (.jsonl is taken
            for samples, .json for SQuAD, .csv and .tsv for an FAQ).

    Raises:
        SampleError: if the format is unknown or the file is not of that format.
    """
    file = Path(path)
    name = _BY_SUFFIX.get(file.suffix.lower(), "") if source == "auto" else source
    if name not in LOADERS:
        choices = ", ".join(("auto", *LOADERS))
        raise SampleError(f"{file.name} is not of format {source!r}; valid choices are {choices}")
    return link_samples(LOADERS[name](file))

"""Questions whose supporting documents are hidden: refusing is then the right reaction."""

from collections.abc import Sequence
from dataclasses import replace

from evals.errors import SampleError
from evals.samples import Sample

HIDDEN = "gold hidden"
_SUFFIX = "#hidden"


def hide_gold(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Give the samples as they are without their gold: nothing answers them any more.

    Questions that never had an answer stay; answerable ones that name no gold are left out, since
    nothing can be hidden. An arm that runs them must leave the documents in `gold` out.

    Raises:
        SampleError: if no sample names a gold source.
    """
    hidden = tuple(
        replace(sample, answers=None, tags=(*sample.tags, HIDDEN))
        if sample.answerable and sample.gold
        else sample
        for sample in samples
        if sample.gold or not sample.answerable
    )
    if not any(is_hidden(sample) for sample in hidden):
        raise SampleError("no answerable sample names a gold source that could be hidden")
    return hidden


def with_hidden_twins(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Give every sample, and each answerable one once more with its gold hidden.

    One run then shows both how well an arm answers and whether it refuses when it should. A twin
    is in the cluster of its original.

    Raises:
        SampleError: if no sample names a gold source.
    """
    able = [sample for sample in samples if sample.answerable and sample.gold]
    twins = [replace(sample, id=sample.id + _SUFFIX) for sample in hide_gold(able)]
    return (*samples, *twins)


def is_hidden(sample: Sample) -> bool:
    """Whether the documents in `gold` must be left out when this sample is asked."""
    return HIDDEN in sample.tags

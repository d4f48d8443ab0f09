"""What share of the generated rows shows which difficulty."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from tuning.errors import TuneConfigError


@dataclass(frozen=True, slots=True)
class ReaderMix:
    """Chances in [0, 1]; what each is worth is measured by `benchmarks.reader_ablation`.

    Attributes:
        unanswerable: questions that no passage answers.
        history: rows with an earlier question and its answer.
        window: passages cut to a run of sentences, as chunking leaves them.
        policyqa: rows from PolicyQA, where that is given.
        redraws: near misses that are the same passage about another name.
        sections: other sections of the same article beside the right one.
        articles: templates that are sections of an article; 0 uses single passages alone.
        noise: questions typed in a hurry.
    """

    unanswerable: float = 0.16
    history: float = 0.1
    window: float = 0.25
    policyqa: float = 0.12
    redraws: float = 1.0
    sections: float = 0.75
    articles: float = 1.0
    noise: float = 1.0

    def __post_init__(self) -> None:
        for part in fields(self):
            if not 0 <= getattr(self, part.name) <= 1:
                raise TuneConfigError(
                    f"reader_mix[{part.name!r}]={getattr(self, part.name)} must lie in [0, 1]"
                )


def reader_mix(parts: Mapping[str, float] | None) -> ReaderMix:
    """The standard mix with some shares changed.

    Raises:
        TuneConfigError: a name is unknown or a share lies outside [0, 1].
    """
    names = [part.name for part in fields(ReaderMix)]
    for name in parts or {}:
        if name not in names:
            raise TuneConfigError(f"reader_mix has no {name!r}: choose {', '.join(names)}")
    return ReaderMix(**(parts or {}))

"""Flaws of the data behind an evaluation: leaked questions, wrong labels, stale answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evals.linking import near_equal_pairs
from evals.metrics.answers import normalise_answer, strip_citations, token_f1
from evals.metrics.values import extract_values, unsupported_values, value_recall
from evals.outputs import Output
from evals.samples import Sample
from evals.statistics.intervals import Interval
from evals.statistics.rates import rate_interval

_GRAM = 13  # words in a row that two independent texts hardly share (GPT-3, Brown et al. 2020)
_TOLERATED_NOISE = 0.02
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Leak:
    """A sample that training has seen; `how` is equal, near-equal or 13-gram."""

    sample_id: str
    how: str
    training_text: str


@dataclass(frozen=True, slots=True)
class LeakageAudit:
    """Samples against training rows."""

    samples: int
    training_rows: int
    leaks: tuple[Leak, ...]

    @property
    def share(self) -> float:
        """The share of samples that training has seen."""
        return len({leak.sample_id for leak in self.leaks}) / max(1, self.samples)


@dataclass(frozen=True, slots=True)
class LabelNoise:
    """Signs that accepted answers are wrong.

    Attributes:
        against: of the questions on which most arms say the same, the share where the accepted
            answer is another; near 0 with right labels, since independent arms seldom agree on
            one wrong answer.
        conflicts: of the pairs of near-equal questions, the share with different answers.
        suspects: ids to look at first.
    """

    against: Interval
    conflicts: Interval
    suspects: tuple[str, ...]

    @property
    def flagged(self) -> bool:
        """Whether one of the two is shown to be above 2 %."""
        return any(
            found.low is not None and found.low > _TOLERATED_NOISE
            for found in (self.against, self.conflicts)
        )


@dataclass(frozen=True, slots=True)
class StaleAnswers:
    """Answers that cannot have been made from what they were given.

    Attributes:
        answers: sample ids whose text is word for word that of the run before the change, with
            values that its own passages do not hold any more.
        compared: answers whose passages changed.
        shared_identities: identities under which answers with different passages were stored, so
            that a cache keyed by them would give one for the other.
    """

    arm: str
    answers: tuple[str, ...]
    compared: int
    shared_identities: int


def audit_leakage(samples: Sequence[Sample], training: Sequence[str]) -> LeakageAudit:
    """Look for samples among training texts (the questions and replies of its rows).

    Equal after normalisation, near-equal words with the same numbers, or 13 words in a row. The
    knowledge base may hold what samples ask about; training rows may not.
    """
    plain: dict[str, str] = {}
    grams: dict[tuple[str, ...], str] = {}
    for text in training:
        words = normalise_answer(text).split()
        plain.setdefault(" ".join(words), text)
        for start in range(len(words) - _GRAM + 1):
            grams.setdefault(tuple(words[start : start + _GRAM]), text)
    leaks: dict[str, Leak] = {}
    for sample in samples:
        question = normalise_answer(sample.question)
        if question in plain:
            leaks[sample.id] = Leak(sample.id, "equal", plain[question])
            continue
        for text in (sample.question, *(sample.answers or ())):
            words = normalise_answer(text).split()
            spans = (tuple(words[i : i + _GRAM]) for i in range(len(words) - _GRAM + 1))
            found = next((grams[span] for span in spans if span in grams), None)
            if found is not None:
                leaks.setdefault(sample.id, Leak(sample.id, "13-gram", found))
    texts = [*plain.values(), *(sample.question for sample in samples)]
    for a, b in near_equal_pairs(texts):
        if a < len(plain) <= b:
            sample = samples[b - len(plain)]
            leaks.setdefault(sample.id, Leak(sample.id, "near-equal", texts[a]))
    return LeakageAudit(len(samples), len(training), tuple(leaks[name] for name in sorted(leaks)))


def estimate_label_noise(
    samples: Sequence[Sample], outputs: Mapping[str, Mapping[str, Output]], arms: Sequence[str]
) -> LabelNoise:
    """Look for wrong accepted answers by what arms agree on and by near-equal questions.

    Args:
        samples: the questions.
        outputs: arm -> sample id -> answer.
        arms: candidates; two thirds of them, and at least two, must agree in words.
    """
    needed = max(2, int(np.ceil(2 * len(arms) / 3)))
    accepted = {normalise_answer(a) for sample in samples for a in sample.answers or ()}
    against: list[float] = []
    suspects: list[str] = []
    for sample in samples:
        given = [outputs[arm].get(sample.id) for arm in arms]
        common = _agreed([output for output in given if output is not None], needed, accepted)
        if sample.answers is None or common is None:
            continue
        wrong = _contradicts(common, sample.answers)
        against.append(float(wrong))
        if wrong:
            suspects.append(sample.id)
    conflicts: list[float] = []
    for a, b in near_equal_pairs([sample.question for sample in samples]):
        first, second = samples[a], samples[b]
        # The same words in two conversations may be two questions.
        if first.history or second.history or (first.gold and first.gold != second.gold):
            continue
        differ = not _same_answers(first, second)
        conflicts.append(float(differ))
        if differ:
            suspects += [first.id, second.id]
    return LabelNoise(_rate(against), _rate(conflicts), tuple(dict.fromkeys(suspects))[:_SHOWN])


def find_stale(before: Mapping[str, Output], after: Mapping[str, Output], arm: str) -> StaleAnswers:
    """Look for answers of one arm that were carried over a change of the knowledge.

    Args:
        before: answers by sample id before the change; empty if there was only one run.
        after: answers by sample id.
        arm: its name.
    """
    stale: list[str] = []
    compared = 0
    for name, now in after.items():
        was = before.get(name)
        if was is None or not now.passages or now.passages == was.passages:
            continue
        compared += 1
        texts = [passage.text for passage in now.passages]
        if (
            now.text == was.text
            and extract_values(now.text)
            and unsupported_values(now.text, texts)
            and not unsupported_values(was.text, [passage.text for passage in was.passages])
        ):
            stale.append(name)
    return StaleAnswers(arm, tuple(stale), compared, _shared_identities(before, after))


def _agreed(outputs: Sequence[Output], needed: int, accepted: set[str]) -> str | None:
    """What most arms say, by its values if it has any; None if they do not agree.

    Only what could be an answer counts: an accepted answer of some question, or what a passage
    holds. Arms also agree on "no idea".
    """
    votes: dict[tuple[tuple[str, str], ...] | str, list[Output]] = {}
    for output in outputs:
        if output.error is None and not output.abstained:
            values = sorted({(v.kind, v.key) for v in extract_values(output.text)})
            said = normalise_answer(strip_citations(output.text))
            votes.setdefault(tuple(values) or said, []).append(output)
    if not votes:
        return None
    key, agreeing = max(votes.items(), key=lambda item: len(item[1]))
    output = next((o for o in agreeing if o.passages), agreeing[0])
    plain = normalise_answer(strip_citations(output.text))
    texts = [passage.text for passage in output.passages]
    held = (
        not unsupported_values(output.text, texts)
        if isinstance(key, tuple)
        else any(plain in normalise_answer(text) for text in texts)
    )
    return (
        output.text if len(agreeing) >= needed and plain and (plain in accepted or held) else None
    )


def _contradicts(text: str, answers: Sequence[str]) -> bool:
    recalled = value_recall(text, answers)
    if recalled.value is not None:
        return recalled.value == 0.0
    return token_f1(text, answers).value == 0.0


def _shared_identities(before: Mapping[str, Output], after: Mapping[str, Output]) -> int:
    passages: dict[str, set[tuple[str, ...]]] = {}
    for output in (*before.values(), *after.values()):
        identity = output.meta.get("identity")
        if isinstance(identity, str) and output.passages:
            found = passages.setdefault(identity, set())
            found.add(tuple(passage.text for passage in output.passages))
    return sum(len(texts) > 1 for texts in passages.values())


def _same_answers(a: Sample, b: Sample) -> bool:
    if a.answers is None or b.answers is None:
        return a.answers is None and b.answers is None
    return any((token_f1(answer, b.answers).value or 0.0) > 0.5 for answer in a.answers)


def _rate(values: Sequence[float]) -> Interval:
    column = np.asarray(values, dtype=np.float64)
    return rate_interval(column, np.arange(len(column)))

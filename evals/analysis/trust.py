"""Reasons to mistrust an evaluation, and how often its questions have been used."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from evals.analysis.case import Case, shown
from evals.arms import HYBRID, PROMPT, RAG, TUNED
from evals.faults import find_faults
from evals.integrity import Leak, estimate_label_noise, find_stale
from evals.judging import Verdicts, judge_card
from evals.sections import Section
from evals.statistics.clustered import cluster_t
from evals.statistics.intervals import Floats

Severity = Literal["warning", "error"]
_MANY_USES = 10


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something that makes numbers of the report wrong or doubtful.

    Attributes:
        kind: what it is in a few words.
    """

    kind: str
    severity: Severity
    sentence: str


def find_flaws(case: Case) -> tuple[Flaw, ...]:
    """Give the flaws that samples, outputs and training rows show by themselves."""
    return (*_leaked(case), *_noisy(case), *_stale(case), *_compared(case), *_reused(case))


def trust_sections(case: Case) -> tuple[Section, ...]:
    """Give the leakage audit and the judge's card."""
    return (*_leakage_section(case), *_judge_section(case), *_forgetting_section(case))


def _leaked(case: Case) -> tuple[Flaw, ...]:
    audit = case.leakage
    if audit is None or not audit.leaks:
        return ()
    n = len({leak.sample_id for leak in audit.leaks})
    sentence = (
        f"{n} of {audit.samples} questions ({100 * audit.share:.0f} %) also stand in the training "
        f"rows, such as {audit.leaks[0].sample_id!r}: tuned arms may have learned them by heart"
    )
    return (Flaw("leaked questions", "error", sentence),)


def _noisy(case: Case) -> tuple[Flaw, ...]:
    noise = estimate_label_noise(case.samples, case.by_arm, case.candidates)
    if not noise.flagged:
        return ()
    shares = []
    if noise.against.n:
        shares.append(
            f"on {shown(noise.against, 2)} of the {noise.against.n} questions where most arms say "
            "the same, the accepted answer is another"
        )
    if noise.conflicts.n:
        shares.append(
            f"{shown(noise.conflicts, 2)} of {noise.conflicts.n} pairs of near-equal questions "
            "have different answers"
        )
    look = ", ".join(noise.suspects[:5])
    sentence = f"Accepted answers may be wrong: {'; '.join(shares)}. Look first at {look}"
    return (Flaw("wrong labels", "warning", sentence),)


def _stale(case: Case) -> tuple[Flaw, ...]:
    earlier = case.known.earlier[1] if case.known.earlier else ()
    flaws = []
    for arm in case.candidates:
        before = {output.sample_id: output for output in earlier if output.arm == arm}
        found = find_stale(before, case.by_arm[arm], arm)
        if found.answers:
            flaws.append(
                Flaw(
                    "stale answers",
                    "error",
                    f"{len(found.answers)} answers of {arm} are word for word those from before "
                    f"the change, with values that none of their passages holds, such as "
                    f"{found.answers[0]!r}: a cache answers across versions of the knowledge",
                )
            )
        elif found.shared_identities:
            flaws.append(
                Flaw(
                    "stale answers",
                    "error",
                    f"{found.shared_identities} identities of {arm} stand for answers with "
                    "different passages: a cache keyed by them would give one for the other",
                )
            )
    return tuple(flaws)


def _compared(case: Case) -> tuple[Flaw, ...]:
    """Faults of the comparison itself, with the names and arrays that the samples give."""
    known, table = case.known, case.evaluation.table
    stages = [known.stages.get(name, "") for name in table.sample_ids] if known.stages else None
    keys = {
        name: [groups.get(sample, sample) for sample in table.sample_ids]
        for name, groups in known.keys.items()
    }
    faults = find_faults(
        case.evaluation,
        stages=stages,
        keys=keys | _sources(case),
        labels=_columns(case, known.labels),
        judged=_columns(case, known.verdicts),
        # The same words in two conversations may be two questions.
        questions=None
        if any(sample.history for sample in case.samples)
        else [sample.question for sample in case.samples],
    )
    return tuple(Flaw(fault.kind, fault.severity, fault.sentence) for fault in faults)


def _sources(case: Case) -> dict[str, list[str]]:
    """Documents, where gold ids name their passages: `guide#3` belongs to `guide`."""
    if not any("#" in gold for sample in case.samples for gold in sample.gold):
        return {}
    first = [sample.gold[0].split("#")[0] if sample.gold else sample.id for sample in case.samples]
    return {"document": first}


def _columns(case: Case, verdicts: Verdicts) -> dict[str, Floats]:
    arms = {arm for arm, _ in verdicts}
    return {
        arm: np.array(
            [
                float(verdicts[arm, name]) if (arm, name) in verdicts else np.nan
                for name in case.evaluation.table.sample_ids
            ]
        )
        for arm in sorted(arms)
    }


def _reused(case: Case) -> tuple[Flaw, ...]:
    uses = case.known.earlier_uses
    if uses is None or uses < _MANY_USES:
        return ()
    sentence = (
        f"These questions were used {uses} times before: choices made on them fit them by chance. "
        "Confirm on fresh questions"
    )
    return (Flaw("reused questions", "warning", sentence),)


def _leakage_section(case: Case) -> tuple[Section, ...]:
    audit = case.leakage
    if audit is None:
        return _not_audited(case)
    ways = ("equal", "near-equal", "13-gram")
    counts = {way: sum(leak.how == way for leak in audit.leaks) for way in ways}
    rows: list[tuple[str, str]] = [
        ("training texts", str(audit.training_rows)),
        ("questions equal to one", str(counts["equal"])),
        ("near-equal", str(counts["near-equal"])),
        ("13 words in a row", str(counts["13-gram"])),
    ]
    rows += [
        (f"score of {arm} on leaked less clean questions", premium)
        for arm in case.candidates
        if arm in (TUNED, HYBRID) and (premium := _premium(case, arm, audit.leaks))
    ]
    rows += [
        (leak.sample_id, f"{leak.how}: {leak.training_text[:160]}") for leak in audit.leaks[:5]
    ]
    note = (
        "Questions that training has seen measure memory. The knowledge base may hold what is "
        "asked; training rows may not."
    )
    return (Section("Training rows against questions", ("", "found"), tuple(rows), note),)


def _not_audited(case: Case) -> tuple[Section, ...]:
    tuned = [arm for arm in case.candidates if arm not in (PROMPT, RAG)]
    if not tuned:
        return ()
    rows = (("training texts", "not known here: not audited"), ("tuned arms", ", ".join(tuned)))
    note = (
        "Nothing says that training has not seen these questions: an adapter that was brought in "
        "from elsewhere does not carry its rows."
    )
    return (Section("Training rows against questions", ("", "found"), rows, note),)


def _premium(case: Case, arm: str, leaks: tuple[Leak, ...]) -> str | None:
    seen = {leak.sample_id for leak in leaks}
    mask = np.array([sample.id in seen for sample in case.samples])
    scores, clusters = case.scores(arm), case.evaluation.table.clusters
    leaked, clean = mask & ~np.isnan(scores), ~mask & ~np.isnan(scores)
    if leaked.sum() < 2 or clean.sum() < 2:
        return None
    means = [cluster_t(scores[part], clusters[part]).estimate or 0.0 for part in (leaked, clean)]
    return f"{means[0] - means[1]:+.3f}".replace("-", "−")


def _forgetting_section(case: Case) -> tuple[Section, ...]:
    found = {arm: row for arm, row in case.known.forgetting.items() if row["items"]}
    if not found:
        return ()
    rows = tuple(
        (
            arm,
            int(row["items"]),
            f"{row['accuracy_base']:.3f}",
            f"{row['accuracy_adapter']:.3f}",
            "{:+.3f} ({:+.3f} to {:+.3f})".format(
                row["accuracy_change"], *row["accuracy_interval"]
            ),
            "not worse" if row["not_inferior"] else "not shown to be not worse",
        )
        for arm, row in sorted(found.items())
    )
    margin = next(iter(found.values()))["margin"]
    columns = ("arm", "questions", "base", "adapter", "change", f"by a margin of {margin:g}")
    note = "General questions that have nothing to do with the task: what tuning cost the model."
    return (Section("Forgetting", columns, rows, note),)


def _judge_section(case: Case) -> tuple[Section, ...]:
    known, table = case.known, case.evaluation.table
    if not known.verdicts or not known.labels:
        return ()
    clusters = dict(zip(table.sample_ids, table.clusters.tolist(), strict=True))
    card = judge_card(
        known.verdicts,
        known.labels,
        clusters=clusters,
        confidence=case.evaluation.settings.confidence,
    )
    rows = tuple(
        (
            row.arm,
            row.labels,
            shown(row.sensitivity),
            shown(row.specificity),
            shown(row.human),
            shown(row.judged),
            shown(row.corrected) or "too few labels",
            None if row.worth is None else round(row.worth, 2),
        )
        for row in card
    )
    columns = (
        "arm", "human labels", "sensitivity", "specificity", "people alone",
        "judge alone", "corrected (PPI++)", "worth in labels",
    )  # fmt: skip
    note = (
        "The judge alone is never used. The corrected mean is unbiased whatever the judge: a bad "
        "one only makes it no better than the labels alone."
    )
    return (Section("Judge", columns, rows, note),)

"""Why a decision came out as it did, in plain sentences, and what to be careful about."""

from collections.abc import Sequence

from evals.decision_spec import DecisionSpec
from evals.evaluation import Evaluation
from evals.evidence import Evidence, pair_bound
from evals.metrics.score import METRICS
from evals.prior import Prior
from evals.relaxation import Relaxation
from evals.rules import Outcome
from evals.sample_size import MoreNeeded
from evals.sentences import pair_sentence, share, verdict_sentence
from evals.statistics.power import mde

_FEW_CLUSTERS = 20


def headline(
    evidence: Evidence,
    spec: DecisionSpec,
    outcome: Outcome,
    more: MoreNeeded | None,
    default: str | None,
) -> str:
    """Give the decision in one sentence."""
    arm = outcome.choice
    if outcome.status == "WINNER":
        mean = evidence.mean(arm or "") or 0.0
        score = f"{METRICS[spec.primary].label} {mean:.3f}"
        if len(evidence.registered) == 1:
            return f"Serve {arm} ({score}): it was the only candidate and keeps every limit."
        return f"Serve {arm} ({score}): it is shown to be the best arm that keeps the limits."
    if outcome.status == "CHEAPEST":
        others = [other for other in outcome.survivors if other != arm]
        return (
            f"Serve {arm}: it is the cheapest arm, and {_list(others)} "
            f"cannot be better by {spec.margin:g} or more."
        )
    if outcome.status == "ASSUMED":
        return f"Nothing is measured yet: start with {arm}."
    if outcome.status == "INFEASIBLE":
        return "No arm keeps the limits; none is chosen."
    count = (
        "more questions alone will hardly decide it"
        if more is None
        else f"about {more.samples} more questions in new groups ({more.answers} answers) are "
        "needed if the arms differ as much as they seem to"
    )
    return f"Undecided between {_list(outcome.survivors)}: {count}. Serve {default} meanwhile."


def reasons(
    evidence: Evidence, spec: DecisionSpec, outcome: Outcome, relaxation: Relaxation | None
) -> tuple[str, ...]:
    """Give the steps from the bounds to the outcome."""
    count = "1 arm" if len(evidence.arms) == 1 else f"{len(evidence.arms)} arms"
    lines = [
        f"{count} answered {evidence.samples} questions in {evidence.clusters} independent groups."
        if evidence.arms
        else "No arm was left to be measured."
    ]
    lines += [
        rejection.sentence
        if rejection.kind == "gate"
        else f"{rejection.arm} is dropped. {rejection.sentence}"
        for rejection in outcome.rejected
    ]
    if outcome.status == "INFEASIBLE":
        if relaxation is None:
            lines.append("No change of a limit would admit an arm.")
        return (*lines, relaxation.sentence) if relaxation else tuple(lines)
    for arm in outcome.survivors:
        lines += [
            verdict_sentence(verdict, spec.slack)
            for verdict in evidence.verdicts_of(arm)
            if verdict.verdict == "not shown"
        ]
    lines += [
        pair_sentence(pair, spec)
        for pair in evidence.pairs
        if pair.a in outcome.survivors and pair.b in outcome.survivors
    ]
    if outcome.status == "UNDECIDED" and evidence.clusters < spec.min_clusters:
        lines.append(
            f"{evidence.clusters} independent groups are too few for a claim about quality; "
            f"{spec.min_clusters} are the least."
        )
    elif outcome.status == "UNDECIDED" and not outcome.certified:
        lines.append("No surviving arm is shown to keep every limit.")
    if outcome.choice is not None and spec.constraints:
        lines.append(f"{outcome.choice} is shown to keep every limit (slack {share(spec.slack)}).")
    return tuple(lines)


def warnings(
    evaluation: Evaluation, evidence: Evidence, spec: DecisionSpec, outcome: Outcome
) -> tuple[str, ...]:
    """Name what limits the decision's reach."""
    lines = []
    if evidence.clusters < _FEW_CLUSTERS:
        lines.append(
            f"Only {evidence.clusters} independent groups of questions: the effective n is that."
        )
    largest = evaluation.audit.largest_cluster_share
    if evidence.clusters > 1 and largest > 0.5:
        lines.append(f"One cluster holds {share(largest)} of the questions.")
    for arm, unscored in zip(evidence.arms, evidence.unscored, strict=True):
        if unscored:
            lines.append(f"{unscored} answers of {arm} could not be scored and are left out.")
    for arm, failed in zip(evidence.arms, evidence.failed, strict=True):
        if failed:
            lines.append(
                f"{failed} answers of {arm} failed: each counts as the worst score and as slower "
                "than any limit."
            )
    widest = max(
        (
            smallest
            for pair in evidence.pairs
            if {pair.a, pair.b} <= set(outcome.survivors)
            and (smallest := mde(pair.sd, pair.clusters, alpha=pair.alpha)) is not None
        ),
        default=None,
    )
    if widest is not None and spec.margin < widest / 2:
        lines.append(
            f"The margin {spec.margin:g} is less than half of {widest:.3f}, the smallest "
            "difference these questions would probably show between the surviving arms. "
            "Ask more questions or accept a wider margin."
        )
    if outcome.choice is not None and spec.confirm_share == 0 and len(evidence.arms) > 1:
        lines.append(
            "No questions were held back, so the advantage of the chosen arm is likely "
            "somewhat smaller than it looks."
        )
    lines += _baseline_warnings(evaluation, spec, outcome.choice)
    return tuple(lines)


def exploratory_reasons(why: Sequence[str]) -> tuple[str, ...]:
    """Say what a decision lacks that was not made by the rules fixed before the data."""
    if not why:
        return ()
    return (
        *why,
        "The chance of a wrong choice is not bounded here: confirm it on fresh questions, "
        "registered before they are asked.",
    )


def expiry(spec: DecisionSpec) -> tuple[str, ...]:
    """Say what makes this decision due again; nothing switches by itself."""
    return (
        f"{spec.expires_days} days have passed.",
        "The answers change faster or slower than when this was decided.",
        "People ask about other things than the questions it rests on.",
        "People correct the answers more often than before.",
        "The base model, the embedding model, the prompt or an adapter has changed.",
    )


def prior_sentence(prior: Prior, choice: str | None) -> str:
    """Compare the outcome with the advice for similar use cases."""
    if choice is None:
        return f"The advice for similar use cases is {prior.default}; it is not evidence."
    if choice == prior.default:
        return f"This agrees with the advice for similar use cases ({prior.default})."
    return (
        f"The advice for similar use cases was {prior.default}; the measurement says {choice}, "
        "and the measurement counts."
    )


def _baseline_warnings(evaluation: Evaluation, spec: DecisionSpec, choice: str | None) -> list[str]:
    if choice is None:
        return []
    names = sorted(evaluation.table.baselines)
    return [
        f"{choice} is not shown to beat the baseline {name}."
        for name in names
        if pair_bound(evaluation.table, name, choice, spec.primary, spec.alpha).low <= 0
    ]


def _list(arms: tuple[str, ...] | list[str]) -> str:
    return arms[0] if len(arms) == 1 else f"{', '.join(arms[:-1])} and {arms[-1]}"

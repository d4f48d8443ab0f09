"""The numbers of a decision in plain sentences."""

from evals.decision_spec import DecisionSpec
from evals.evidence import ConstraintVerdict, PairBound
from evals.metrics.score import METRICS


def share(value: float) -> str:
    """Write a share as a percentage with at most one decimal."""
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def verdict_sentence(verdict: ConstraintVerdict, slack: float) -> str:
    """Say what is known about one arm and one limit."""
    constraint = verdict.constraint
    if verdict.estimate is None:
        return f"{verdict.arm} has no answer from which {constraint.label} could be judged."
    if constraint.quantile is not None:
        what = f"of {verdict.arm}'s answers take longer than {constraint.limit:g} s"
        allowed = f"{share(1 - constraint.quantile)} are allowed"
    else:
        what = f"{METRICS[constraint.metric].label} of {verdict.arm}"
        allowed = f"the limit is {constraint.sense.replace('_', ' ')} {share(constraint.limit)}"
    measured = f"{share(verdict.estimate)} measured on {verdict.n}"
    at_least, at_most = f"at least {share(verdict.low)}", f"at most {share(verdict.high)}"
    upper = constraint.sense == "at_most"
    bound = (
        (at_least if upper else at_most)
        if verdict.verdict == "fail"
        else (at_most if upper else at_least)
    )
    if constraint.quantile is not None:
        text = f"{bound[0].upper()}{bound[1:]} {what} ({measured}); {allowed}"
    else:
        text = f"{what[0].upper()}{what[1:]} is {bound} ({measured}); {allowed}"
    if verdict.verdict == "pass":
        return f"{text} with a slack of {share(slack)}."
    return f"{text}." if verdict.verdict == "fail" else f"{text}: not shown either way."


def dominated_sentence(arm: str, better: str, pair: PairBound, metric: str) -> str:
    """Say by how much an arm is beaten."""
    low, _ = pair.gain(better)
    return (
        f"Its {METRICS[metric].label} is at least {low:.3f} below {better} "
        f"(difference {pair.estimated_gain(better):.3f} on {pair.n} questions)."
    )


def unscored_sentence(arm: str, lost: tuple[int, int], samples: int, allowed: float) -> str:
    """Say that too many answers of an arm could not be scored or failed; `lost` counts both."""
    unscored, failed = lost
    parts = [f"{unscored} of {samples} answers of {arm} could not be scored"] if unscored else []
    if failed:
        parts.append(f"{failed} of {samples} answers of {arm} failed")
    return f"{' and '.join(parts)}; at most {share(allowed)} may be missing."


def pair_sentence(pair: PairBound, spec: DecisionSpec) -> str:
    """Say what is known about two arms that both survive."""
    label = METRICS[spec.primary].label
    if pair.estimate is None:
        return f"{pair.a} and {pair.b} were never scored on the same question."
    estimate, low, high = (
        f"{value:+.3f}".replace("-", "−") for value in (pair.estimate, pair.low, pair.high)
    )
    return (
        f"{pair.b} minus {pair.a} in {label} is {estimate}, between {low} and {high}; "
        f"the margin is {spec.margin:g}."
    )

"""What the founding articles advise for a use case: a starting point, never evidence.

The advice says which arm to build first, how the allowed error is shared between the arms, and
what to serve while nothing has been measured. Any sharing keeps the guarantee of a decision
(weighted Bonferroni), so wrong advice costs questions, never a wrong outcome.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from evals.arms import COST_ORDER, HYBRID, PROMPT, RAG, TUNED
from evals.gates import CaseFacts, check_gates

PRIOR_VERSION = 1
_FAVOURED = 0.4  # share of the error for the advised arm; the others share the rest
_ENOUGH_EXAMPLES = 100


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of advice: the first row that fits is taken."""

    name: str
    arm: str
    because: str


@dataclass(frozen=True, slots=True)
class Prior:
    """The advice for one use case.

    Attributes:
        rule: name of the row that was taken.
        default: the arm to serve while nothing is measured; it passes every gate.
        build_order: arms, the most promising first.
        effort: share of the allowed error per arm; they add up to 1.
        reasons: the advice in plain sentences.
    """

    version: int
    rule: str
    default: str
    build_order: tuple[str, ...]
    effort: tuple[tuple[str, float], ...]
    reasons: tuple[str, ...]


def seed_rule(case: CaseFacts) -> Rule:
    """Give the row of the founding articles that fits a use case."""
    examples = [arm.examples for arm in case.arms if arm.examples is not None]
    few = bool(examples) and max(examples) < _ENOUGH_EXAMPLES
    fresh = case.must_cite or case.changes in ("medium", "high")
    if case.requirements_move or few:
        why = "what is wanted still changes" if case.requirements_move else "examples are few"
        arm = RAG if fresh or case.domain in ("support", "documents", "finance") else PROMPT
        return Rule("start simple", arm, f"{why}, so nothing should be trained yet")
    if case.domain == "support" or case.task == "dialogue":
        if case.changes == "low":
            return Rule("stable support", TUNED, "the facts hardly change and one tone is wanted")
        return Rule("support", HYBRID, "facts change and one tone is wanted")
    if case.domain == "finance":
        return Rule("finance", HYBRID, "live figures must be looked up and laid out in one form")
    if case.domain == "code" and not fresh:
        return Rule("stable code", TUNED, "patterns are stable and latency matters")
    if case.domain == "documents" or case.task in ("question_answering", "summarisation"):
        if fresh or case.domain == "documents":
            return Rule("documents", RAG, "new documents keep coming in")
        return Rule("stable questions", RAG, "sources are there and nothing needs training")
    if fresh:
        return Rule("changing facts in a strict form", HYBRID, "both facts and form matter")
    return Rule("strict form", TUNED, "the form matters and the facts hardly change")


def seed_prior(case: CaseFacts, arms: Sequence[str] = COST_ORDER) -> Prior | None:
    """Give the advice among the arms that pass every gate; None when none does.

    If the advised arm is ruled out, the arm nearest to it is advised, the cheaper of equals.
    """
    failed = {failure.arm for failure in check_gates(case, arms)}
    allowed = [arm for arm in arms if arm not in failed]
    if not allowed:
        return None
    rule = seed_rule(case)
    reasons = [f"For use cases like this ({rule.name}) {rule.arm} is advised: {rule.because}."]
    order = sorted(allowed, key=lambda arm: _distance(case, rule.arm, arm))
    if rule.arm not in allowed:
        known = "is ruled out here" if rule.arm in arms else "is not among the candidates"
        reasons.append(f"{rule.arm} {known}, so {order[0]} comes first.")
    rest = (1 - _FAVOURED) / (len(allowed) - 1) if len(allowed) > 1 else 0.0
    shares = {arm: rest for arm in allowed} | {order[0]: _FAVOURED if rest else 1.0}
    return Prior(
        PRIOR_VERSION,
        rule.name,
        order[0],
        tuple(order),
        tuple((arm, shares[arm]) for arm in arms if arm in shares),
        tuple(reasons),
    )


def _distance(case: CaseFacts, wanted: str, arm: str) -> tuple[bool, int, int]:
    """How far an arm is from the wanted one: parts missing, then parts it has instead.

    Something else in the place of a missing part is better than nothing; without a missing part
    anything else is needless.
    """
    advised, offered = case.facts(wanted), case.facts(arm)
    pairs = ((advised.retrieves, offered.retrieves), (advised.tuned, offered.tuned))
    missing = sum(wants and not has for wants, has in pairs)
    instead = sum(has and not wants for wants, has in pairs)
    return arm != wanted, missing, -instead if missing else instead

"""The worst answers of each arm, folded, beside what the others said and what was retrieved."""

from collections.abc import Collection

from evals.evaluation import Evaluation
from evals.failures import ArmAnswer, Failure
from evals.report.tables import arm_name
from evals.text import escape, number, shorten


def failure_cards(evaluation: Evaluation) -> str:
    """Give the failures of all arms, or nothing when there are none."""
    body = ""
    for arm in dict.fromkeys(failure.arm for failure in evaluation.failures):
        worst = [failure for failure in evaluation.failures if failure.arm == arm]
        cases = "".join(_failure(failure, evaluation.table.baselines) for failure in worst)
        body += f'<div class="by"><h3>{arm_name(evaluation, arm)}</h3>{cases}</div>'
    return body


def _failure(failure: Failure, baselines: Collection[str]) -> str:
    expected = "abstain" if failure.expected is None else " | ".join(failure.expected)
    gold = ", ".join(failure.gold) or "none"
    said = "".join(_said(a) for a in failure.answers if a.arm not in baselines)
    beside = "".join(_said(a) for a in failure.answers if a.arm in baselines)
    if beside:
        beside = f'<details><summary>Baselines</summary><div class="said">{beside}</div></details>'
    read: dict[tuple[str, str], None] = {}
    for answer in failure.answers:
        if answer.arm == failure.arm:
            read = dict.fromkeys((passage.id, passage.text) for passage in answer.passages)
    passages = "".join(
        f'<div class="passage{" gold" if name in failure.gold else ""}">'
        f"<code>{escape(name)}</code><p>{escape(shorten(text))}</p></div>"
        for name, text in read
    )
    heading = f"<h3>Retrieved by {escape(failure.arm)}</h3>" if passages else ""
    return (
        f"<details><summary>{number(failure.score, 2)} · "
        f'{escape(shorten(failure.question, 160))} <span class="soft">'
        f"{escape(', '.join(failure.tags))}</span></summary>"
        f"<p>Expected: <b>{escape(shorten(expected, 400))}</b> "
        f'<span class="soft">gold: {escape(gold)} · question {escape(failure.sample_id)}</span></p>'
        f'<div class="said">{said}</div>{beside}{heading}{passages}</details>'
    )


def _said(answer: ArmAnswer) -> str:
    text = f"error: {answer.error}" if answer.error is not None else answer.text
    flags = " · abstained" if answer.abstained else ""
    cited = f"cites {', '.join(answer.citations)}" if answer.citations else "cites nothing"
    return (
        f"<div><b>{escape(answer.arm)}</b> "
        f'<span class="soft">{number(answer.score, 2)}{flags} · {escape(cited)}</span>'
        f"<p>{escape(shorten(text, 800))}</p></div>"
    )

"""Confidence: what answering less would save, and whether 80 % means 80 %."""

from dataclasses import dataclass

import numpy as np

from evals.analysis.case import Case
from evals.metrics.selective import (
    Calibration,
    RiskPoint,
    aurc,
    best_aurc,
    calibration,
    risk_coverage,
    thin,
)
from evals.sections import Chart, Line, Section

_STATED = ("confidence", "coverage")  # the first that an output carries
_FEWEST = 20


@dataclass(frozen=True, slots=True)
class _Curve:
    arm: str
    points: tuple[RiskPoint, ...]
    area: float
    best: float
    calibration: Calibration
    answered: float


def confidence_sections(case: Case) -> tuple[Section, ...]:
    """Give risk against coverage and calibration, for arms whose outputs carry a confidence."""
    curves = [curve for arm in case.candidates if (curve := _curve(case, arm)) is not None]
    if not curves:
        return ()
    risk = Chart(
        "Risk against coverage",
        "share of questions answered, surest first",
        "share of them wrong",
        tuple(
            Line(c.arm, tuple((p.coverage * c.answered, p.risk) for p in thin(c.points)))
            for c in curves
        ),
    )
    reliability = Chart(
        "Calibration",
        "confidence",
        "score",
        tuple(
            Line(c.arm, tuple((b.confidence, b.score) for b in c.calibration.bins)) for c in curves
        ),
        diagonal=True,
        marks=True,
    )
    rows = tuple(
        (
            c.arm,
            c.calibration.n,
            round(c.area, 4),
            round(c.best, 4),
            round(c.calibration.ece, 4),
            round(c.calibration.brier, 4),
            _answered_at(c, 0.1),
        )
        for c in curves
    )
    columns = (
        "arm",
        "answers",
        "AURC",
        "AURC, perfect order",
        "calibration error",
        "Brier",
        "answered at 10 % risk",
    )
    note = (
        "Risk is 1 less the primary score. A threshold on confidence moves an arm along its curve: "
        "lower is better. AURC is the mean risk over all thresholds. On the right, points on the "
        "diagonal mean that confidence can be taken at its word. Where an answer states none, the "
        "retriever's estimate that the knowledge base covers the question stands in."
    )
    section = Section("Confidence", columns, rows, note, (risk, reliability))
    return (section,)


def _curve(case: Case, arm: str) -> _Curve | None:
    scores = case.scores(arm)
    sure, values, asked = [], [], 0
    for output, score in zip(case.answers(arm), scores, strict=True):
        if output is None or np.isnan(score):
            continue
        asked += 1
        stated = next((output.meta[n] for n in _STATED if output.meta.get(n) is not None), None)
        if output.abstained or isinstance(stated, bool) or not isinstance(stated, int | float):
            continue
        sure.append(min(1.0, max(0.0, float(stated))))
        values.append(float(score))
    if len(sure) < _FEWEST:
        return None
    confidence, column = np.array(sure), np.array(values)
    area, best = aurc(confidence, column), best_aurc(column)
    fitted = calibration(confidence, column)
    if area is None or best is None or fitted is None:
        return None
    points = risk_coverage(confidence, column)
    return _Curve(arm, points, area, best, fitted, len(sure) / asked)


def _answered_at(curve: _Curve, risk: float) -> str:
    """The largest share that can be answered with at most this risk."""
    fitting = [point.coverage for point in curve.points if point.risk <= risk]
    return f"{100 * max(fitting) * curve.answered:.0f} %" if fitting else "none"

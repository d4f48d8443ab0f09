"""How far each arm's answers are in the house style, by a classifier learned from texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.db.tables import Evaluation
from app.errors import BadInput
from app.evaluations.reports import BASELINES
from evals.canonical import jsonable
from evals.errors import MetricError
from evals.metrics.style import train_style
from evals.runner import read_outputs
from evals.samples import clusters, load_samples
from evals.statistics.rates import rate_interval

_BARE = "prompt"
_TRUSTED = 0.8


def style_of(
    evaluation: Evaluation, house: Sequence[str], others: Sequence[str] | None
) -> dict[str, Any]:
    """Learn the house style from texts and score every arm of an evaluation by it.

    Args:
        evaluation: a finished one.
        house: texts in the house style that no adapter was trained on.
        others: texts on the same subjects that are not; default the bare model's answers, half of
            which are then kept for its own score.

    Raises:
        BadInput: if there are too few texts.
    """
    folder = Path(evaluation.path)
    samples = load_samples(folder / "samples.jsonl")
    groups = dict(zip((s.id for s in samples), clusters(samples), strict=True))
    said: dict[str, list[tuple[str, int]]] = {}
    for output in read_outputs(folder / "outputs.jsonl"):
        if output.arm not in BASELINES and not output.abstained and output.repeat == 0:
            text = "" if output.error else output.text
            said.setdefault(output.arm, []).append((text, groups[output.sample_id]))
    learned_from = "texts given"
    if others is None:
        bare = [row for row in said.get(_BARE, []) if row[0]]
        others = [text for text, group in bare if group % 2 == 0]
        said[_BARE] = [row for row in said.get(_BARE, []) if row[1] % 2]
        learned_from = f"half of the answers of {_BARE}"
    try:
        model = train_style([t for t in house if t.strip()], [t for t in others if t.strip()])
    except MetricError as error:
        raise BadInput(f"{error}: give more texts with --house and --others") from error
    arms = []
    for arm, rows in sorted(said.items()):
        values = np.array([float(bool(text) and model(text)) for text, _ in rows])
        ids = np.array([group for _, group in rows], dtype=np.int64)
        arms.append({"arm": arm, "in_house": jsonable(rate_interval(values, ids))})
    sure = model.held_out_auc >= _TRUSTED
    return {
        "evaluation": evaluation.id,
        "held_out_auc": round(model.held_out_auc, 4),
        "trusted": sure,
        "house_texts": len(house),
        "other_texts": len(others),
        "others_are": learned_from,
        "arms": arms,
        "sentence": (
            f"The classifier tells house texts from others it has not seen with an AUC of "
            f"{model.held_out_auc:.2f}. "
            + (
                "Read its score beside the task's: copying a reply word for word scores high too."
                if sure
                else f"Below {_TRUSTED:g} it cannot tell the style: do not use its score."
            )
        ),
    }

"""The JSON of a report: all that the page shows, with a schema version and finite numbers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from evals.analysis import Analysis
from evals.canonical import jsonable
from evals.decision import Decision
from evals.evaluation import Evaluation
from evals.sections import Section

SCHEMA_VERSION = 1


def to_json(
    evaluation: Evaluation,
    decision: Decision,
    *,
    manifest: Mapping[str, Any] | None = None,
    extra_sections: Sequence[Section] = (),
    analysis: Analysis | None = None,
) -> str:
    """Write the report as indented JSON; single scores are left out, the outputs hold them.

    Raises:
        EvalError: if the manifest or a section holds a value that JSON cannot.
    """
    measured = {
        field.name: getattr(evaluation, field.name)
        for field in fields(evaluation)
        if field.name != "table"
    }
    record = {
        "schema_version": SCHEMA_VERSION,
        "manifest": dict(manifest or {}),
        "evaluation": measured,
        "decision": decision,
        "sections": [*(analysis.sections if analysis else ()), *extra_sections],
        "flaws": list(analysis.flaws) if analysis else [],
    }
    return json.dumps(jsonable(record), indent=2, allow_nan=False) + "\n"

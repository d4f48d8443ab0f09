"""What a run was made of, as rows for people: nested settings by name, arms in one line each."""

from collections.abc import Mapping, Sequence
from typing import Any

from evals.decision import Decision
from evals.evaluation import Evaluation
from evals.sections import flatten

_IN_THE_HEAD = ("title", "created_at", "rerun")


def manifest_rows(
    evaluation: Evaluation, decision: Decision, manifest: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Give (name, text) rows; what the head of the report says and what is empty is left out.

    Args:
        evaluation: for the digests of samples and outputs.
        decision: for the digest of the rules, and the look where the manifest names none.
        manifest: as given to the report. `arms` holds objects with `name`, `arm` and `adapter`;
            `adapters` may give a name for the ids of adapters.
    """
    kept = {key: value for key, value in manifest.items() if key not in _IN_THE_HEAD}
    arms, names = kept.get("arms"), kept.pop("adapters", None)
    rows = [
        ("samples digest", evaluation.samples_digest),
        ("outputs digest", evaluation.outputs_digest),
        ("decision rules digest", decision.spec_digest),
    ]
    if "look" not in kept:
        rows.append(("look", f"{decision.look} of {decision.spec.looks} planned"))
    if _are_arms(arms):
        kept.pop("arms")
        rows.append(("arms", "; ".join(_arm(arm, names or {}) for arm in arms or ())))
    rows += [(key.replace("_", " "), text) for key, text in flatten(kept) if text]
    return rows


def _are_arms(arms: Any) -> bool:
    listed = isinstance(arms, Sequence) and not isinstance(arms, str)
    return listed and all(isinstance(arm, Mapping) and "name" in arm for arm in arms)


def _arm(arm: Mapping[str, Any], names: Mapping[str, str]) -> str:
    adapter = arm.get("adapter")
    parts = [str(names.get(adapter, adapter))] if adapter else []
    parts += [f"runs as {arm['arm']}"] if arm.get("arm", arm["name"]) != arm["name"] else []
    parts += [
        f"{key} {value}"
        for key, value in arm.items()
        if key not in ("name", "arm", "adapter") and value
    ]
    return f"{arm['name']} ({', '.join(parts)})" if parts else str(arm["name"])

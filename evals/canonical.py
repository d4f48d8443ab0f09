"""One way to write a value as JSON, so that equal content has equal bytes and an equal digest."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Set
from typing import Any

from evals.errors import EvalError

_DECIMALS = 10  # far below any interval's width, far above float noise between machines


def jsonable(value: Any) -> Any:
    """Turn dataclasses, mappings and sequences into plain JSON values.

    Floats are rounded to 10 decimals. Sets are sorted.

    Raises:
        EvalError: on a float that is not finite, or on a type JSON has no word for.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise EvalError(f"{value} is not a finite number and cannot be written as JSON")
        rounded = round(float(value), _DECIMALS)
        return 0.0 if rounded == 0 else rounded
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, Set):
        return [jsonable(item) for item in sorted(value)]
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    raise EvalError(f"a value of type {type(value).__name__} cannot be written as JSON")


def canonical_json(value: Any) -> str:
    """Write JSON with sorted keys and no spaces, ASCII only."""
    return json.dumps(jsonable(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()

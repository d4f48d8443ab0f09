"""What an arm answered to one sample, and how that is kept as JSON."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evals.canonical import digest
from evals.errors import OutputError


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of context that was put before the model."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Output:
    """One answer of one arm.

    Attributes:
        citations: ids actually cited in the text, already mapped from the markers `[1]`, `[2]`.
        retrieved: ids in rank order; empty for an arm without retrieval.
        latency_s: wall-clock seconds from the question to the last token.
        error: why there is no answer; it is scored as a failure (`evals.scoring`).
        repeat: which answer of this arm to this sample it is, from 0.
        meta: anything else that is JSON. `meta["passages"]`, a list of `{"id", "text"}`, is shown
            beside failures and is the evidence for `value_faithfulness`.
    """

    sample_id: str
    arm: str
    text: str
    citations: tuple[str, ...] = ()
    retrieved: tuple[str, ...] = ()
    abstained: bool = False
    latency_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    repeat: int = 0

    def __post_init__(self) -> None:
        if self.repeat < 0:
            raise OutputError(f"repeat must be at least 0, got {self.repeat}")
        if not math.isfinite(self.latency_s) or self.latency_s < 0:
            raise OutputError(f"latency_s must be a finite number >= 0, got {self.latency_s}")

    @property
    def passages(self) -> tuple[Passage, ...]:
        """The passages kept in `meta`; entries that are not `{"id", "text"}` are left out."""
        found = self.meta.get("passages", ())
        if not isinstance(found, list | tuple):
            return ()
        return tuple(
            Passage(str(p.get("id", "")), p["text"])
            for p in found
            if isinstance(p, Mapping) and isinstance(p.get("text"), str)
        )


def output_record(output: Output) -> dict[str, Any]:
    """Give the JSON object of an output, as `parse_output` reads it."""
    record = {
        "sample_id": output.sample_id,
        "arm": output.arm,
        "text": output.text,
        "citations": list(output.citations),
        "retrieved": list(output.retrieved),
        "abstained": output.abstained,
        "latency_s": output.latency_s,
        "prompt_tokens": output.prompt_tokens,
        "completion_tokens": output.completion_tokens,
        "error": output.error,
        "meta": output.meta,
    }
    # Only where there are several: digests of runs with one answer each stay what they were.
    return record | {"repeat": output.repeat} if output.repeat else record


def output_line(output: Output) -> str:
    """Write an output as one line of JSON, without the newline.

    Raises:
        OutputError: if `meta` holds something JSON cannot.
    """
    try:
        return json.dumps(output_record(output), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise OutputError(
            f"output of arm {output.arm!r} for sample {output.sample_id!r} is not JSON: {error}"
        ) from error


def parse_output(record: Any) -> Output:
    """Build an output from one decoded JSON object.

    Raises:
        OutputError: naming the field.
    """
    if not isinstance(record, Mapping):
        raise OutputError(f"expected a JSON object, got {type(record).__name__}")
    error = record.get("error")
    meta = record.get("meta", {})
    if error is not None and not isinstance(error, str):
        raise OutputError(f"field 'error' must be a string or null, got {error!r}")
    if not isinstance(meta, dict):
        raise OutputError(f"field 'meta' must be an object, got {meta!r}")
    return Output(
        sample_id=_typed(record, "sample_id", str),
        arm=_typed(record, "arm", str),
        text=_typed(record, "text", str),
        citations=_ids(record, "citations"),
        retrieved=_ids(record, "retrieved"),
        abstained=_typed(record, "abstained", bool),
        latency_s=float(_typed(record, "latency_s", (int, float))),
        prompt_tokens=_typed(record, "prompt_tokens", int),
        completion_tokens=_typed(record, "completion_tokens", int),
        error=error,
        meta=meta,
        repeat=_typed({"repeat": 0, **record}, "repeat", int),
    )


def outputs_digest(outputs: Iterable[Output]) -> str:
    """Sha256 (hex) of the content of the outputs, whatever their order."""
    ordered = sorted(outputs, key=lambda o: (o.arm, o.sample_id, o.repeat))
    return digest([output_record(output) for output in ordered])


def _typed(record: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    value = record.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise OutputError(f"field {name!r} has the wrong type: {value!r}")
    return value


def _ids(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = record.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise OutputError(f"field {name!r} must be a list of strings, got {value!r}")
    return tuple(value)

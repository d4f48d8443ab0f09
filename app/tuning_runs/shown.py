"""Training progress as people see it."""

from __future__ import annotations

from typing import Any


def shown(event: dict[str, Any]) -> tuple[int, int, str]:
    """Progress in percent of the steps, and a line for people."""
    total = int(event.get("total_steps") or 0)
    percent = min(98, round(98 * int(event["step"]) / total)) if total else 0
    parts = [str(event["phase"])]
    if total:
        parts.append(f"step {event['step']}/{total}")
    if event.get("loss") is not None:
        parts.append(f"loss {event['loss']:.3f}")
    if event.get("tokens_per_second"):
        parts.append(f"{event['tokens_per_second']:.0f} tok/s")
    if event.get("eta_seconds") is not None:
        parts.append(f"ETA {event['eta_seconds']:.0f} s")
    parts += [f"dev {name} {value:.2f}" for name, value in (event.get("scores") or {}).items()]
    if event.get("message"):
        parts.append(str(event["message"]))
    return percent, 100, ", ".join(parts)

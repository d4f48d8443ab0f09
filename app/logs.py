"""Structured logs on stderr: readable lines, or JSON for collectors."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logs(level: str, *, as_json: bool) -> None:
    """Set level and format once per process."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.WARNING)
    logging.basicConfig(
        level=number, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s"
    )
    for noisy in ("httpx", "alembic", "dbos", "sentence_transformers", "filelock"):
        logging.getLogger(noisy).setLevel(max(number, logging.WARNING))
    renderer = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_to_stderr,
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
    )


def _to_stderr(*_: object) -> structlog.PrintLogger:
    """The stderr of this moment: one that was redirected at the start may be closed by now."""
    return structlog.PrintLogger(sys.stderr)

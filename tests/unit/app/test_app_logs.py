"""Logs go to the stderr of the moment."""

import io

import structlog

from app.logs import configure_logs


def test_a_stderr_that_was_closed_since_the_start_breaks_no_request(monkeypatch, capsys):
    before = structlog.get_config()
    first = io.StringIO()
    try:
        with monkeypatch.context() as patched:
            patched.setattr("sys.stderr", first)
            configure_logs("warning", as_json=False)
            structlog.get_logger("a").warning("under the first")
        assert "under the first" in first.getvalue()
        first.close()
        structlog.get_logger("a").warning("under the second")
        assert "under the second" in capsys.readouterr().err
    finally:
        structlog.configure(**before)

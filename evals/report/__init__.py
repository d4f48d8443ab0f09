"""An evaluation and its decision as a self-contained HTML page, as Markdown and as JSON."""

from evals.report.markdown import to_markdown
from evals.report.page import render_report
from evals.report.record import to_json
from evals.sections import Section

__all__ = ["Section", "render_report", "to_json", "to_markdown"]

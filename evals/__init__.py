"""Samples and a callable in; scores, a decision and a report out. Built on numpy and scipy.

Read top down: `samples` and `outputs` (what goes in), `runner.run_arms` (asks every arm every
question), `evaluation.evaluate` (scores with intervals), `decision.decide` and `decision.replay`
(which arm to serve), `report.render_report`, `report.to_markdown`, `report.to_json`. Single
metrics live in `metrics`, the statistics behind every interval in `statistics`.
"""

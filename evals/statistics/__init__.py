"""Intervals, tests and sample sizes for scores of dependent samples; numpy and scipy only."""

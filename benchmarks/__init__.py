"""Benchmarks: peers and floors beside us in one run, ratios out."""

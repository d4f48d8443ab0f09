"""Metrics of single answers; every one returns a `Score`, and unscorable is never 0."""

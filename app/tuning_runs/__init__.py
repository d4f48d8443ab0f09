"""Tuning runs and the adapters that come of them."""

"""Decisions: which arm serves, on what evidence."""

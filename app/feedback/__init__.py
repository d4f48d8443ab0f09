"""Feedback on answers, review by a second person, examples that come of it."""

"""Arms compared on the same samples, with a report."""

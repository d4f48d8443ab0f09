"""Use cases: the thing a product team calls as `model`."""

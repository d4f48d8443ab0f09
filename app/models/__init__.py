"""Model files: where they lie, and how the two default models get there without any hub."""

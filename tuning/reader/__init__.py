"""Training rows for the reader adapter, from hand-written passage templates."""

"""Examples into sealed dataset snapshots."""

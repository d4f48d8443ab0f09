"""Admission: who asks, how much they may ask for, and how many are answered at once."""

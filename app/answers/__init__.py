"""Answers: retrieve, pack, prompt, generate, ground, record."""

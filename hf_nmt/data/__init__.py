"""Parallel text: where it comes from, what was used."""

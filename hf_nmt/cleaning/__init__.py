"""Cleaning of parallel text: steps over tables of records, what they drop and why, in which order they run."""

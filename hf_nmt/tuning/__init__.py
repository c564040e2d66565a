"""Searches for settings of a recipe: studies, their trials, what they found."""

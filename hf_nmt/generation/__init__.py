"""Decoding: from encoded sentences to translations with scores."""

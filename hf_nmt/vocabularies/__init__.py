"""Adapts the vocabulary of a saved model: trimming, growing, a vocabulary trained anew, further language codes."""

"""The model family. Everything here travels with the weights: flat, relative imports only."""

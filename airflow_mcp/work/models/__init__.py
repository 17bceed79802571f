"""Load a model and have it answer."""

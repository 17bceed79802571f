"""Reads features from a Feast feature store; the only code that imports Feast."""

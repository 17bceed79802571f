"""Profiles of data, and how two datasets differ."""

"""Drift: profiles of data, how two datasets are compared, and what is concluded."""

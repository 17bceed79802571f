"""Drift: profiles of data, policies of comparison, results and verdicts."""

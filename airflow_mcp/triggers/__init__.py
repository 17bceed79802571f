"""Triggers: they poll and, when a person ends the task, cancel. Results are read back on the worker."""

"""The code that a workload runs: where it is, which commit, and how Git is asked."""

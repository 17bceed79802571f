"""Bring code and data to the workload: checkouts, DVC, Git LFS, hashes."""

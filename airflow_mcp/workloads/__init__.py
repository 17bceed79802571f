"""Backends that run a workload, in a pod or as a child process; the operators choose one by ``runtime``."""

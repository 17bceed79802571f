"""Read datasets and request logs, whole or piece by piece."""

"""The only code that changes the model registry, and the reads that it needs. Does not import Airflow."""

"""The only code that changes the model registry, and what it reads to do so. Needs no Airflow."""

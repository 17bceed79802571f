"""The MLflow run of the step, and the process it runs in."""

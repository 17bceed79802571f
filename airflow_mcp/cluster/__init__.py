"""A Kubernetes cluster and the pods of workloads, seen without Airflow."""

"""A Kubernetes cluster and the pods of workloads, without Airflow."""

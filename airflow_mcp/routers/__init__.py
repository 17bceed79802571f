"""What moves requests besides the model servers: Gateway API, Services, Argo Rollouts, KServe. Without Airflow."""

#!/usr/bin/env bash
# Start Airflow, MLflow and PostgreSQL with the example Dags on the cluster of KUBECONFIG, for trying out:
# deploy/local.sh [FOLDER], where FOLDER is an overlay of your own on deploy/kustomize/local. docs/deploy.md
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
overlay=${1:-$here/kustomize/local}

kubectl apply --filename "$here/kustomize/local/namespace.yaml"
"$here/secrets.sh" airflow-mcp
kubectl apply --kustomize "$overlay"
for part in statefulset/postgres deployment/mlflow deployment/airflow-api-server deployment/airflow-scheduler \
  deployment/airflow-dag-processor deployment/airflow-triggerer; do
  kubectl --namespace airflow-mcp rollout status "$part" --timeout=15m
done
cat <<'END'
Everything runs. Airflow, at http://localhost:8080 (user admin):
  kubectl --namespace airflow-mcp port-forward service/airflow-api-server 8080
  kubectl --namespace airflow-mcp get secret airflow-login --output 'jsonpath={.data.passwords\.json}' | base64 --decode
MLflow, at http://localhost:5000:
  kubectl --namespace airflow-mcp port-forward service/mlflow 5000
END

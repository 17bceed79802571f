#!/usr/bin/env bash
# Make the Secrets of the overlay `local` that are missing, with random values: deploy/secrets.sh [NAMESPACE]
# Secrets that exist stay as they are. No value is written to a file or shown on a command line.
set -euo pipefail
namespace=${1:-airflow-mcp}

exists() { test -n "$(kubectl --namespace "$namespace" get secret "$1" --ignore-not-found --output name)"; }
create() { kubectl --namespace "$namespace" create secret generic "$@"; }
field() { kubectl --namespace "$namespace" get secret "$1" --output "jsonpath={.data.$2}" | base64 --decode; }
text() { openssl rand -hex 24 | tr -d '\n'; }
# Fernet takes 32 bytes in the alphabet that is safe in addresses.
fernet() { openssl rand -base64 32 | tr '+/' '-_' | tr -d '\n'; }
url() { printf 'postgresql+psycopg2://%s:%s@postgres:5432/%s' "$1" "$(field postgres "$1_password")" "$1"; }

exists airflow-keys || create airflow-keys \
  --from-file=fernet_key=<(fernet) --from-file=api_secret_key=<(text) --from-file=jwt_secret=<(openssl rand -hex 64 | tr -d '\n')
exists postgres || create postgres \
  --from-file=superuser_password=<(text) --from-file=airflow_password=<(text) --from-file=mlflow_password=<(text)
exists airflow-database || create airflow-database --from-file=url=<(url airflow)
exists mlflow-database || create mlflow-database --from-file=url=<(url mlflow)
exists airflow-login || create airflow-login --from-file=passwords.json=<(printf '{"admin": "%s"}' "$(text)")
exists airflow-connections || create airflow-connections \
  --from-file=connections.yaml=<(printf 'mlflow_default: {conn_type: mlflow, host: "http://mlflow.%s:5000"}\n' "$namespace")

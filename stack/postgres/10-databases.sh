#!/bin/sh
# A database and a role for Airflow, and for MLflow. PostgreSQL's image runs this once, when its data folder is empty.
# psql reads the passwords from files: on a command line, everybody on the machine could read them.
set -eu
for name in airflow mlflow; do
  psql --set ON_ERROR_STOP=1 --quiet --username postgres --dbname postgres <<SQL
\\set password \`cat /secrets/postgres/${name}_password\`
CREATE ROLE ${name} LOGIN PASSWORD :'password';
CREATE DATABASE ${name} OWNER ${name};
REVOKE CONNECT ON DATABASE ${name} FROM PUBLIC;
SQL
done

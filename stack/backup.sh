#!/bin/sh
# Saves the stack of docker-compose.yaml to a folder, and restores it from there. docs/stack.md#backups
#
#   stack/backup.sh save FOLDER      stops the services except PostgreSQL while it copies, and starts them again
#   stack/backup.sh restore FOLDER   into a project that has no volumes yet
#
# COMPOSE is the command of Compose, with its options: COMPOSE="docker compose --project-name second"
set -eu
umask 077 # a backup has every secret of the stack in it

usage="usage: stack/backup.sh save|restore FOLDER"
action=${1:?$usage} folder=${2:?$usage}
case $folder in /*) ;; *) folder=$PWD/$folder ;; esac
cd "$(dirname "$0")/.."
compose=${COMPOSE:-docker compose}

find_project() {
  container=$($compose ps --all --quiet secrets)
  test -n "$container" || { echo "this project has no containers: start it first" >&2; exit 1; }
  image=$(docker inspect --format '{{.Image}}' "$container")
  project=$(docker inspect --format '{{index .Config.Labels "com.docker.compose.project"}}' "$container")
}

# The volumes of files: "NAME KEY", where KEY is the name in docker-compose.yaml. PostgreSQL's is dumped instead.
volumes() {
  docker volume ls --filter "label=com.docker.compose.project=$project" \
    --format '{{.Name}} {{.Label "com.docker.compose.volume"}}' | grep -v ' postgres-data$'
}

save() {
  find_project
  mkdir -p "$folder"
  # shellcheck disable=SC2046
  $compose stop $($compose config --services | grep -v '^postgres$')
  trap '$compose up --detach' EXIT
  for database in airflow mlflow; do
    $compose exec -T postgres pg_dump --username postgres --format custom "$database" >"$folder/$database.dump.part"
    mv "$folder/$database.dump.part" "$folder/$database.dump"
  done
  volumes | while read -r name key; do
    docker run --rm --user 0 --network none --volume "$name:/volume:ro" "$image" \
      tar --directory /volume --create --gzip . </dev/null >"$folder/$key.tar.gz.part"
    mv "$folder/$key.tar.gz.part" "$folder/$key.tar.gz"
  done
  echo "saved to $folder: $(du -sh "$folder" | cut -f1)"
}

restore() {
  for file in airflow.dump mlflow.dump secrets.tar.gz airflow-login.tar.gz; do
    test -s "$folder/$file" || { echo "$folder/$file is missing: nothing was restored" >&2; exit 1; }
  done
  if $compose ps --all --quiet | grep -q .; then
    echo "this project has containers: nothing was restored. Remove it first (down --volumes), or name another one in COMPOSE" >&2
    exit 1
  fi
  # Containers that are not started, to make the volumes; of services that do not wait for each other, because version 1
  # of Compose would wait here too.
  $compose up --no-start --no-deps secrets example-data mlflow airflow-migrate
  find_project
  volumes | while read -r name key; do
    test -f "$folder/$key.tar.gz" || continue
    docker run --rm --interactive --user 0 --network none --volume "$name:/volume" "$image" \
      tar --directory /volume --extract --gzip --preserve-permissions --same-owner <"$folder/$key.tar.gz"
  done
  $compose up --detach postgres
  until $compose exec -T postgres pg_isready --quiet --host 127.0.0.1 --username airflow --dbname airflow </dev/null; do
    sleep 2
  done
  for database in airflow mlflow; do
    $compose exec -T postgres pg_restore --username postgres --dbname "$database" --exit-on-error <"$folder/$database.dump"
  done
  $compose up --detach
}

case $action in
  save | restore) "$action" ;;
  *) echo "$usage" >&2; exit 2 ;;
esac

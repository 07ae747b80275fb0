#!/bin/bash
# Makes the database cluster on the first start, as the official image does: user, password and database from
# POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB. Later starts only start.
set -euo pipefail

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
  : "${POSTGRES_PASSWORD:?POSTGRES_PASSWORD must be set for the first start}"
  user=${POSTGRES_USER:-postgres}
  database=${POSTGRES_DB:-$user}
  # An initialisation that was interrupted leaves files but no marker; initdb refuses a directory that is not empty.
  find "$PGDATA" -mindepth 1 -delete
  staging="$PGDATA/.initialising"
  initdb --pgdata="$staging" --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
    --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8
  echo "host all all all scram-sha-256" >> "$staging/pg_hba.conf"
  echo "listen_addresses = '*'" >> "$staging/postgresql.conf"
  if [ "$database" != postgres ]; then
    pg_ctl --pgdata="$staging" --wait --options="-c listen_addresses=''" start
    createdb --username="$user" --owner="$user" "$database"
    pg_ctl --pgdata="$staging" --wait --mode=fast stop
  fi
  # PG_VERSION moves last: it is the marker of a complete cluster.
  find "$staging" -mindepth 1 -maxdepth 1 ! -name PG_VERSION -exec mv --target-directory="$PGDATA" {} +
  mv "$staging/PG_VERSION" "$PGDATA/"
  rmdir "$staging"
fi
exec "$@"

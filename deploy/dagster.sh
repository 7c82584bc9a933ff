#!/bin/sh
# Runs a command of Dagster's. Its instance reads the address of its database from the environment alone, so the secret
# becomes a variable of this one process.
set -eu
ELECTRORED_DAGSTER_DB_URL=$(cat "$ELECTRORED_SECRETS_DIR/electrored_dagster_db_url")
export ELECTRORED_DAGSTER_DB_URL
exec "$@"

#!/bin/sh
# Makes the secrets of docker-compose.yml: sh deploy/secrets.sh [FOLDER]. A file that is there already stays.
# The folder is its owner's alone. The files in it are readable, because a container sees them with their mode, and its
# user is another one.
set -eu

folder=${1:-secrets}
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"
umask 022

password() {
  [ -s "$1" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "$1"
}

# content FILE: what is read from stdin, unless the file is there.
content() {
  [ -s "$1" ] && cat > /dev/null || cat > "$1"
}

url() {
  printf 'postgresql+psycopg2://%s:%s@%s:5432/%s\n' "$1" "$(cat "$2")" "$3" "$4"
}

for name in sales_superuser results_superuser shop capture watcher results reader dagster registry soap grafana marquez; do
  password "${name}_password"
done

url postgres sales_superuser_password sales-db postgres | content sales_server_url
url postgres results_superuser_password results-db postgres | content results_server_url
url electrored_shop shop_password sales-db sales | content sales_db_url_shop
url electrored_capture capture_password sales-db sales | content sales_db_url_capture
url electrored_watcher watcher_password sales-db sales | content sales_db_url_watcher
url electrored_results results_password results-db results | content results_db_url_writer
url electrored_reader reader_password results-db results | content results_db_url_reader
url electrored_dagster dagster_password results-db dagster | content dagster_db_url
url electrored_reader reader_password results-db dagster | content dagster_db_url_reader

content sales_role_passwords << END
{"electrored_shop": "$(cat shop_password)", "electrored_capture": "$(cat capture_password)",
 "electrored_watcher": "$(cat watcher_password)"}
END
content results_role_passwords << END
{"electrored_results": "$(cat results_password)", "electrored_reader": "$(cat reader_password)",
 "electrored_dagster": "$(cat dagster_password)", "electrored_registry": "$(cat registry_password)"}
END
content registry.properties << END
apicurio.datasource.password=$(cat registry_password)
END
content marquez.yml << END
server:
  applicationConnectors: [{type: http, port: 5000}]
  adminConnectors: [{type: http, port: 5001}]
db:
  driverClass: org.postgresql.Driver
  url: jdbc:postgresql://marquez-db:5432/marquez
  user: marquez
  password: $(cat marquez_password)
migrateOnStartup: true
END

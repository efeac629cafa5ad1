#!/bin/sh
# Writes .env beside this file: random secrets, and what `docker compose` starts.
set -eu
file=$(dirname "$0")/.env
if [ -e "$file" ]; then
  echo "$file is there already; remove it first if you want new secrets" >&2
  exit 1
fi
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
umask 077
cat > "$file" <<END
# kafka: a broker of its own; demo: a feed of real candles and glucose readings
COMPOSE_PROFILES=kafka,demo
# the bridge's keys, TENANT:KEY[,TENANT:KEY...]
FLASHFEED_API_KEYS=demo:$(random)
# what the workers sign passed-on requests with
FLASHFEED_CLUSTER_SECRET=$(random)
# what Prometheus reads the workers' metrics with; it opens nothing else
FLASHFEED_METRICS_KEY=$(random)
GRAFANA_PASSWORD=$(random)
END
echo "wrote $file"

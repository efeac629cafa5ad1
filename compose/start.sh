#!/bin/sh
# Starts a worker in a container. SELF in the configuration's advertise_url becomes the address
# under which the other workers reach this one: FLASHFEED_SELF, or the container's own.
set -eu
config=${FLASHFEED_CONFIG:-/etc/flashfeed/flashfeed.toml}
self=${FLASHFEED_SELF:-$(hostname -i | cut -d ' ' -f 1)}
own=${TMPDIR:-/tmp}/flashfeed.toml
sed "s|://SELF:|://$self:|" "$config" > "$own"
exec flashfeed worker -c "$own" "$@"

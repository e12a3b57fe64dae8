#!/bin/sh
# Refuse early, with the command that helps, when the data volume belongs to somebody else.
set -eu
dir="${REPROG_DATA_DIR:-/data}"
if ! [ -d "$dir" ] || ! [ -w "$dir" ]; then
  echo "reprog: $dir is not writable by uid $(id -u)." >&2
  echo "reprog: on the host run: chown -R $(id -u):$(id -g) <the folder or volume mounted at $dir>" >&2
  exit 78
fi
exec "$@"

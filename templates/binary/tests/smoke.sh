#!/bin/sh
# Starts the program on a port of the loopback and fails if it does not answer within ten seconds.
cd "$(dirname "$0")/.." || exit 1
port=${PORT:-18080}
PORT=$port SPORE_ADDRESS=127.0.0.1 ./function &
program=$!
trap 'kill "$program"' EXIT
for _ in $(seq 100); do
  curl --silent --fail --output /dev/null "http://127.0.0.1:$port/" && exit 0
  sleep 0.1
done
echo "it does not answer" >&2
exit 1

#!/bin/sh
# A common hand-written wait for a service: ask, sleep a second, ask again.
until curl --silent --fail --max-time 2 --output /dev/null "$1"; do
    sleep 1
done
shift
exec "$@"

#!/bin/sh
# Installs the programs of the system that the tests marked `system` run. Needs apt-get and root only where one is missing.
set -eu
missing=""
for program in gcc g++ cppcheck openssl; do
	command -v "$program" >/dev/null || missing="$missing $program"
done
[ -z "$missing" ] && exit 0
[ "$(id -u)" = 0 ] || { echo "install these first:$missing" >&2; exit 1; }
apt-get update -qq
# shellcheck disable=SC2086  # a list of plain words
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing

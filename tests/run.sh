#!/bin/bash
# Makes or reuses .venv with all that the tests need, and runs them; options are pytest's: bash tests/run.sh -k order
# Pages are tested in Chromium, which root of a Debian or Ubuntu machine has installed.
#   bash tests/run.sh -m cluster      jobs on real Slurm and Grid Engine daemons, which take twelve minutes: as root of a
#                                     Debian or Ubuntu machine that belongs to no cluster, where it installs them
set -euo pipefail
cd "$(dirname "$0")/.."
bash jobs/install.sh test
case " $* " in *" cluster "*) bash tests/cluster/install.sh ;; esac
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v chromium chromium-browser google-chrome >/dev/null; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium; } >&2 ||
        echo "cannot install chromium: pages are not tested in a browser" >&2
fi
exec .venv/bin/python -m pytest "$@"

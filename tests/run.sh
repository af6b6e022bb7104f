#!/bin/bash
# Makes or reuses .venv with all that the tests need, and runs them; options are pytest's: bash tests/run.sh -k order
# Three files at a time, as those of the clusters mostly wait; -n 0 runs one after the other. Jobs are tested on real Slurm
# and Grid Engine daemons, pages in Chromium, quotas on btrfs: root of a Debian or Ubuntu machine that belongs to no
# cluster has them installed.
#   bash tests/run.sh -m "not cluster"        without the daemons
#   bash tests/run.sh -m gpu                  what needs GPUs, on a node that has them: installs neither of them
set -euo pipefail
cd "$(dirname "$0")/.."
bash jobs/install.sh test
if [[ " $* " == *" -m gpu "* ]]; then
    exec .venv/bin/python -m pytest -n 0 "$@"
fi
bash tests/cluster/install.sh
missing=()
command -v chromium chromium-browser google-chrome >/dev/null || missing+=(chromium)
command -v mkfs.btrfs >/dev/null || missing+=(btrfs-progs)
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ ${#missing[@]} -gt 0 ]; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"; } >&2 ||
        echo "cannot install ${missing[*]}: pages are not tested in a browser, or no quota of a file system" >&2
fi
# One thread of PyTorch each: where there are more than cores, they wait for each other and burn what they wait for.
export OMP_NUM_THREADS=1
exec .venv/bin/python -m pytest -n 3 --no-loadscope-reorder "$@"

#!/bin/bash
# Creates .venv, or reuses it, and installs the project there with the versions of constraints.txt:
#   bash jobs/install.sh            to use it
#   bash jobs/install.sh test       to work on it: also pytest, ruff, mypy and the packages that the tests compare with
set -euo pipefail
cd "$(dirname "$0")/.."
extras=${1:-}
say() { printf '%s\n' "$*" >&2; }

wanted=$(cat pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1)
for stamp in .venv/installed-"$extras"*; do # an installation with an extra has everything else, too
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then exit 0; fi
done

python=${PYTHON:-python3}
command -v "$python" >/dev/null || { say "no $python: install Python 3.10 or newer, or name one with PYTHON=..."; exit 2; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    { say "$("$python" --version) is too old: install Python 3.10 or newer, or name one with PYTHON=..."; exit 2; }
if [ ! -x .venv/bin/pip ]; then
    "$python" -m venv --clear .venv || { say "cannot create .venv: install Python's venv module (Debian: python3-venv)"; exit 2; }
fi
say "installing into $PWD/.venv: about 6 GB, mostly PyTorch with its CUDA libraries; some minutes"
.venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".${extras:+[$extras]}" ||
    { say "the installation failed: fix what pip reports above and start again"; exit 1; }
echo "$wanted" >.venv/installed-"$extras"
say "installed"

#!/bin/bash
# Makes or reuses .venv with all that the tests need, and runs them; options are pytest's: bash tests/run.sh -k order
set -euo pipefail
cd "$(dirname "$0")/.."
bash jobs/install.sh test
exec .venv/bin/python -m pytest "$@"

"""Raw face images to WebDataset shards: sources, packer and shard format. Imports neither torch nor DALI."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  # what clusters call python3 is often older, and knows less syntax
    this = f"Python {sys.version.split()[0]} at {sys.executable}"
    sys.stderr.write(f"{this} is too old, 3.10 is needed: . .venv/bin/activate, or bash jobs/install.sh\n")
    sys.exit(2)

"""Builds the documentation site: python -m docs.site [DIR], by default into docs/html."""

import sys
from pathlib import Path

from docs.site.build import HTML, build

out = Path(sys.argv[1]) if len(sys.argv) > 1 else HTML
build(out)
print(f"the site is in {out}; to look at it: python -m http.server --bind 127.0.0.1 --directory {out}")

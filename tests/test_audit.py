"""None of the pinned packages is known to be vulnerable: asked of PyPI, where a network leads to it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.conftest import REPOSITORY

SECONDS = 120
"""For all of them; a network that drops what is asked answers nothing."""


def test_no_pinned_package_is_known_to_be_vulnerable() -> None:
    if not find_spec("pip_audit"):
        pytest.skip("pip-audit is not installed here: bash jobs/install.sh test")
    audit = ("-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json")
    pins = REPOSITORY / "constraints.txt"
    try:
        done = subprocess.run(
            [sys.executable, *audit, "--requirement", pins],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"PyPI has not answered within {SECONDS} s")
    if not done.stdout:
        pytest.skip(f"pip-audit cannot ask PyPI: {done.stderr.strip().rpartition(chr(10))[2][:300]}")
    packages = json.loads(done.stdout)["dependencies"]
    asked = [package for package in packages if "skip_reason" not in package]
    if not asked:
        pytest.skip(f"PyPI knows none of the packages: {packages[0]['skip_reason'][:300]}")
    vulnerable = {
        f"{package['name']} {package['version']}": [f"{one['id']}: fixed in {one['fix_versions']}" for one in found]
        for package in asked
        if (found := package["vulns"])
    }
    assert vulnerable == {}  # take a version that is not, and run the tests with it

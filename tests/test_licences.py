"""What is installed beside this project may be used by software under the Apache License 2.0."""

from __future__ import annotations

import re
from importlib.metadata import PackageMetadata, distributions

ALLOWED = re.compile(
    r"apache|mit\b|bsd|isc\b|mpl|mozilla public|psf|python software foundation|unlicense|zlib|cc0|bsl-1", re.I
)
"""Licences that ask for notices, or for changes to their own files, alone."""
EXCEPTIONS = {
    "codespell": "GPL: a program that the tests run, nothing of which is imported or passed on",
    "cuda-toolkit": "NVIDIA's: a package without files, which names those of CUDA",
    "hpcgender": "this project",
}
NVIDIA = re.compile(r"nvidia|other/proprietary", re.I)
"""CUDA's libraries, which PyTorch and DALI bring: proprietary, and free to use with them."""


def licences(metadata: PackageMetadata) -> list[str]:
    """What a package says of its licence, each alternative by itself; its classifiers where they say it."""
    found = {name: metadata.get_all(name) or [""] for name in ("License-Expression", "Classifier", "License")}
    named = [one.rpartition(" :: ")[2] for one in found["Classifier"] if one.startswith("License ::")]
    text = found["License-Expression"][0] or "; ".join(named) or found["License"][0].partition("\n")[0]
    return re.split(r"\s+OR\s+|; ", text)


def is_allowed(metadata: PackageMetadata) -> bool:
    name = metadata["Name"]
    named = [one.split(" AND ") for one in licences(metadata)]
    if name.startswith("nvidia-") and any(NVIDIA.search(part) for parts in named for part in parts):
        return True
    return name in EXCEPTIONS or any(all(map(ALLOWED.search, parts)) for parts in named)


def test_every_package_has_a_licence_that_can_be_depended_on() -> None:
    refused = {
        found.metadata["Name"]: licences(found.metadata) for found in distributions() if not is_allowed(found.metadata)
    }
    assert refused == {}  # add it to EXCEPTIONS, with the reason, or do without it

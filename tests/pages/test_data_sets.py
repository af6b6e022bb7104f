"""What the command on the page of data sets packs of Adience, of which no mapping is in the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shard_tools.commands import SHARD_TOOLS
from shard_tools.manifest import read_manifest
from tests.pages.commands import ROOT, commands
from tests.pages.imitations import make_adience


def test_adience_is_packed_by_the_command_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (words,) = (c.words for c in commands(ROOT / "docs" / "data-sets.md") if "data/adience" in c.words)
    monkeypatch.chdir(tmp_path)
    make_adience()
    assert SHARD_TOOLS.run([*words[1:], "--workers", "1"]) == 0, capsys.readouterr().err
    manifest = read_manifest(tmp_path / "data" / "adience")
    index = np.concatenate([manifest.index(split) for split in manifest.splits])
    assert sorted(zip(index["gender"].tolist(), index["age"].tolist(), strict=True)) == sorted(
        [(0, 28.5), (1, 1.0), (1, 35.0), (0, -1.0)] * 5  # the one whose gender is u is left out
    )
    assert len(set(index["subject"].tolist())) == 20

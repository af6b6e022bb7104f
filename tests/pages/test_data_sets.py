"""Commands of the page of data sets that no other test runs, on imitations of the data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shard_tools.commands import SHARD_TOOLS
from shard_tools.manifest import read_manifest
from tests.pages.commands import ROOT, commands
from tests.shard_tools.pictures import picture, save

HEAD = "user_id\toriginal_image\tface_id\tage\tgender\tx\ty\tdx\tdy\ttilt_ang\tfiducial_yaw_angle\tfiducial_score\n"


def test_adience_is_packed_by_the_command_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (words,) = (c.words for c in commands(ROOT / "docs" / "data-sets.md") if "data/adience" in c.words)
    monkeypatch.chdir(tmp_path)
    number = 0
    for fold in range(5):
        lines = [HEAD]
        for age, gender in (("(25, 32)", "f"), ("(0, 2)", "m"), ("35", "m"), ("None", "u"), ("None", "f")):
            user, name = f"{fold}{number}@N03", f"{number}_o.jpg"
            save(tmp_path / "faces" / user / f"coarse_tilt_aligned_face.{fold}.{name}", picture(number))
            lines.append(f"{user}\t{name}\t{fold}\t{age}\t{gender}\t0\t400\t1000\t1000\t115\t30\t17\n")
            number += 1
        (tmp_path / f"fold_{fold}_data.txt").write_text("".join(lines))
    assert SHARD_TOOLS.run([*words[1:], "--workers", "1"]) == 0, capsys.readouterr().err
    manifest = read_manifest(tmp_path / "data" / "adience")
    index = np.concatenate([manifest.index(split) for split in manifest.splits])
    assert sorted(zip(index["gender"].tolist(), index["age"].tolist(), strict=True)) == sorted(
        [(0, 28.5), (1, 1.0), (1, 35.0), (0, -1.0)] * 5  # the one whose gender is u is left out
    )
    assert len(set(index["subject"].tolist())) == 20

"""The data set that CONTRIBUTING.md adds is one that can be packed."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from tests.shard_tools.pictures import picture, save

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()


def test_the_example_of_a_source_packs(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert code
    assert code[1].count("\n") <= 30
    (tmp_path / "initials_source.py").write_text(code[1])
    spec = importlib.util.spec_from_file_location("initials_source", tmp_path / "initials_source.py")
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for number, name in enumerate(("f_1.jpg", "m_2.jpg", "m_3.jpg", "x_4.jpg")):
        save(tmp_path / "images" / name, picture(number))
    pack(module.Initials(images=tmp_path / "images", out=tmp_path / "out", val=0, test=0, workers=1))
    manifest = read_manifest(tmp_path / "out")
    assert manifest.splits["train"].counts == {"female": 1, "male": 2}
    assert manifest.quarantined == 1
    del sys.modules[spec.name]

"""What packs and verifies is decoded by both backends, to the same pixels; the rest is left out, with the reason."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcgender.data.augment import centred
from hpcgender.data.config import Backend, ReadConfig
from hpcgender.data.decoders import create_decoder
from hpcgender.data.evaluation import EvaluationLoader
from hpcgender.distributed import Ranks
from shard_tools.commands.verify import VerifyConfig
from shard_tools.images import ImageError, fingerprint, reencode
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources.folders import Folders
from shard_tools.verify import verify
from tests.shard_tools.image_files import image_files

pytestmark = [  # which shard_tools.images has Python ignore, and pytest does not
    pytest.mark.filterwarnings("ignore:Corrupt EXIF data"),
    pytest.mark.filterwarnings("ignore:Palette images with Transparency"),
]

CPU = torch.device("cpu")
BACKENDS: tuple[Backend, ...] = ("dali", "torchvision")
FILES = image_files()
PACKED = [name for name, (_, why) in FILES.items() if not why]


def decode(backend: Backend, file: bytes) -> torch.Tensor:
    """In whole gray levels."""
    decoder = create_decoder(backend, 1, 64, CPU, None, 1)
    decoder.submit([np.frombuffer(file, dtype=np.uint8)], centred(1))
    return (decoder.result() * 127.5 + 127.5).round()


@pytest.mark.parametrize("name", PACKED)
def test_what_is_packed_looks_the_same_to_both_backends_and_when_encoded_anew(name: str) -> None:
    file, _ = FILES[name]
    fingerprint(file)
    dali, pillow = (decode(backend, file) for backend in BACKENDS)
    assert (dali - pillow).abs().mean() < 0.5
    assert (dali - pillow).abs().max() <= 8
    # What JPEG costs is less than a tenth of what a turned or negative picture is away.
    assert (dali - decode("dali", reencode(file, None, 95))).abs().mean() < 5


@pytest.mark.parametrize(("name", "why"), [(name, why) for name, (_, why) in FILES.items() if why])
def test_what_only_one_decoder_reads_is_left_out_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(ImageError, match=why):
        fingerprint(FILES[name][0])


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of one file of each kind."""
    root = tmp_path_factory.mktemp("kinds")
    (root / "images" / "male").mkdir(parents=True)
    for number, (file, _) in enumerate(FILES.values()):
        (root / "images" / "male" / f"{number:03d}.jpg").write_bytes(file)
    pack(Folders(images=root / "images", out=root / "out", val=0, test=1, workers=1))
    return root / "out"


def test_a_data_set_of_all_kinds_lists_those_left_out_and_verifies(packed: Path) -> None:
    with (packed / "quarantine" / "quarantine.csv").open() as file:
        reasons = {int(Path(row["source"]).stem): row["reason"] for row in csv.DictReader(file)}
    assert {number: why for number, (_, why) in enumerate(FILES.values()) if why}.keys() == reasons.keys()
    for number, (_, why) in enumerate(FILES.values()):
        assert why in reasons.get(number, "")
    assert verify(VerifyConfig(directories=(packed,), workers=1)) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_backends_read_all_of_it(packed: Path, backend: Backend) -> None:
    config = ReadConfig(data=packed, backend=backend)
    ranks = Ranks(0, 1, CPU)
    loader = EvaluationLoader(config, read_manifest(packed), "test", batch_size=16, image_size=32, ranks=ranks)
    assert sum(len(batch.samples) for batch in loader.epoch(0)) == len(PACKED)
    assert not loader.bad
    loader.close()

"""Tables of heat maps: a row for each image, and the evidence by face region."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcgender.cam.regions import read_names, region_rows, region_table, write_regions
from hpcgender.cam.results import Region
from hpcgender.cam.subgroups import Subgroups
from hpcgender.commands.cam import CamConfig
from hpcgender.inference.blocks import Blocks, read_shard, shard_path
from hpcgender.inference.session import Session
from shard_tools.base.errors import UserError
from shard_tools.base.files import whole_text


def write_maps_table(
    path: Path, session: Session[CamConfig], blocks: Blocks, log_odds: npt.NDArray[np.float32]
) -> None:
    """Writes maps.csv: shard and row of each image's map, and the image's prediction."""
    classes, index = session.trained.classes, session.manifest.index(session.config.split)
    with whole_text(path) as file:
        writer = csv.writer(file)
        writer.writerow(("key", "shard", "row", "gender", "group", "log_odds", "prediction"))
        for shard in range(blocks.shards):
            name = shard_path(path.parent / "maps", "maps", shard).name
            place = blocks.images_of(shard)
            for row, (image, value) in enumerate(zip(index[place], log_odds[place].tolist(), strict=True)):
                there = value == value
                writer.writerow(
                    (
                        image["key"].decode(),
                        name,
                        row,
                        classes[image["gender"]] if image["gender"] >= 0 else "",
                        image["group"].decode(),
                        f"{value:.6f}" if there else "",
                        classes[int(value > 0)] if there else "",
                    )
                )


def regions_of(
    session: Session[CamConfig], subgroups: Subgroups, blocks: Blocks, codes: npt.NDArray[np.int64]
) -> tuple[list[Region], int]:
    """The table by face region, on rank 0, and how many images have a mask; writes regions.csv.

    Without --regions it is empty, and the file removed. Every rank must call it. UserError if no image has a mask.
    """
    directory, out, ranks = session.config.regions, session.config.out_dir, session.ranks
    if directory is None:
        if ranks.is_first:
            (out / "regions.csv").unlink(missing_ok=True)
        return [], 0
    names = read_names(directory)
    own = {
        shard: region_rows(
            directory, blocks.keys[blocks.images_of(shard)].tolist(), read_shard(out / "maps", "maps", shard), names
        )
        for shard in range(ranks.rank, blocks.shards, ranks.world_size)
    }
    found = {shard: rows for part in ranks.gather(own) for shard, rows in part.items()}
    if not ranks.is_first:
        return [], 0
    parts, whole = (np.concatenate([found[shard][which] for shard in range(blocks.shards)]) for which in (0, 1))
    masks = int(np.count_nonzero(~np.isnan(whole)))
    if not masks:
        raise UserError(
            f"no image has a mask in {directory}: name them by the keys in maps.csv, as {directory}/KEY.png"
        )
    averages = {subset.name: np.isin(codes, np.flatnonzero(subgroups.chosen(subset))) for subset in subgroups.subsets()}
    table = region_table(parts, whole, names, averages)
    write_regions(out / "regions.csv", table)
    return table, masks

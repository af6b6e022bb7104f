"""Tables of heat maps: a row for each image, and the evidence by parts of the face."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcgender.cam.cells import Cells
from hpcgender.cam.passes import Inputs
from hpcgender.cam.regions import read_names, region_rows, region_table, write_regions
from hpcgender.cam.results import Region
from hpcgender.cam.shards import Plan, read_shard, shard_path
from shard_tools.base.errors import UserError


def write_maps_table(path: Path, inputs: Inputs, plan: Plan, log_odds: npt.NDArray[np.float32]) -> None:
    """Writes maps.csv: which shard and row each image's map is, and what the model said of it."""
    classes = inputs.trained.classes
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("key", "shard", "row", "gender", "group", "log_odds", "prediction"))
        for shard in range(plan.shards):
            name = shard_path(path.parent / "maps", "maps", shard).name
            place = plan.images_of(shard)
            for row, (image, said) in enumerate(zip(inputs.index[place], log_odds[place].tolist(), strict=True)):
                there = said == said
                writer.writerow(
                    (
                        image["key"].decode(),
                        name,
                        row,
                        classes[image["gender"]] if image["gender"] >= 0 else "",
                        image["group"].decode(),
                        f"{said:.6f}" if there else "",
                        classes[int(said > 0)] if there else "",
                    )
                )


def regions_of(inputs: Inputs, cells: Cells, plan: Plan, codes: npt.NDArray[np.int64]) -> tuple[list[Region], int]:
    """The table by parts of the face, on rank 0, and how many images have a mask; writes regions.csv.

    Without --regions it is empty, and the file removed. Every rank must ask. UserError if no image has a mask.
    """
    folder, out = inputs.config.regions, inputs.config.out_dir
    if folder is None:
        if inputs.ranks.is_first:
            (out / "regions.csv").unlink(missing_ok=True)
        return [], 0
    names = read_names(folder)
    own = {
        shard: region_rows(
            folder, plan.keys[plan.images_of(shard)].tolist(), read_shard(out / "maps", "maps", shard), names
        )
        for shard in range(inputs.ranks.rank, plan.shards, inputs.ranks.world_size)
    }
    found = {shard: rows for part in inputs.ranks.gather(own) for shard, rows in part.items()}
    if not inputs.ranks.is_first:
        return [], 0
    parts, whole = (np.concatenate([found[shard][which] for shard in range(plan.shards)]) for which in (0, 1))
    masks = int(np.count_nonzero(~np.isnan(whole)))
    if not masks:
        raise UserError(f"no image has a mask in {folder}: name them by the keys in maps.csv, as {folder}/KEY.png")
    averages = {subset.name: np.isin(codes, np.flatnonzero(cells.chosen(subset))) for subset in cells.subsets()}
    table = region_table(parts, whole, names, averages)
    write_regions(out / "regions.csv", table)
    return table, masks

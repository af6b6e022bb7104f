"""Heat maps of a split with a checkpoint: each image's map, their averages, the deletion check, and pictures."""

from __future__ import annotations

import time
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch

from hpcgender.cam import results
from hpcgender.cam.averages import Averages, sum_maps
from hpcgender.cam.deletion import cell_orders, cells_masked, deletion, draw_images, seen_images
from hpcgender.cam.faces import FaceSums
from hpcgender.cam.maps import evidence_maps, map_cells
from hpcgender.cam.pictures import draw_overlays, draw_pictures, examples, faces_of
from hpcgender.cam.results import FILE, Cam, Deletion
from hpcgender.cam.subgroups import Subgroups
from hpcgender.cam.tables import regions_of, write_maps_table
from hpcgender.commands.cam import MAPS, CamConfig
from hpcgender.data.loader import Batch
from hpcgender.inference.blocks import Rows, read_rows
from hpcgender.inference.engine import blocks_of, check_bad, run_pass
from hpcgender.inference.facts import WORK
from hpcgender.inference.outputs import check_finite, log_odds
from hpcgender.inference.progress import Progress
from hpcgender.inference.session import Session, open_session
from shard_tools.base.errors import UserError
from shard_tools.base.text import plural

ONE_CELL = (1, 1)


def cam(config: CamConfig) -> int:
    """Computes maps as `config` says; rank 0 writes what results.py lists.

    Returns 0, or REQUEUE if a stop was requested before the end: the same command then resumes.
    """
    with open_session(config) as session:
        if "gender" not in session.trained.config.tasks:
            raise UserError(f"{config.checkpoint} was not trained for gender: it has no evidence to draw")
        HeatMaps(session).make()
    return session.exit_code


class HeatMaps:
    """One start of the work: a pass for the maps, one for the deletion check, and what follows from their results."""

    def __init__(self, session: Session[CamConfig]) -> None:
        self.session, self.config, self.ranks = session, session.config, session.ranks
        self.model, self.out = session.trained.model, session.config.out_dir
        self.began = time.time()
        self.computed = 0
        """Images whose maps this start computed, on all ranks."""
        self.map_cells = map_cells(self.model, session.trained.image_size, self.ranks.device)
        if self.map_cells == ONE_CELL and self.ranks.is_first:
            print(
                "heat maps of 1x1 cells do not show where the evidence is, and there is no deletion check: "
                f"train with {session.trained.config.finer_maps} than {session.trained.image_size}",
                flush=True,
            )
        self.index = session.manifest.index(self.config.split)
        self.subgroups = Subgroups(self.index, session.trained.classes)
        self.blocks = blocks_of(session, self.config.split)
        self.origin = self.config.origin(self.config.split)

    def make(self) -> None:
        """Does what is missing, unless a stop is requested before the end."""
        faces = self.map_pass()
        if faces is None:
            return
        seconds = time.time() - self.began
        log_odds = read_rows(self.out / MAPS, self.blocks, "log_odds", self.blocks.samples)
        bad = check_bad(self.session, self.config.split, np.isnan(log_odds))
        codes = self.subgroups.codes(self.blocks.samples, log_odds)
        if not (codes >= 0).any():
            raise UserError(
                f"no image of known gender in {self.config.split} of {self.config.data} decodes: nothing to average"
            )
        check = self.deletion_pass(codes)
        if self.session.stop.reason:
            return
        sums = sum_maps(self.out / MAPS, self.blocks, self.subgroups, self.ranks, self.map_cells)
        regions, masks = regions_of(self.session, self.subgroups, self.blocks, codes)
        shown = examples(self.subgroups.gender, codes, self.config.examples)
        pixels = faces_of(self.session, shown)
        draw_overlays(self.session, self.blocks, log_odds)
        if not self.ranks.is_first:
            return
        averages = Averages(self.subgroups, sums, faces)
        found = Cam(
            checkpoint=self.session.checkpoint_facts(),
            data=results.Data(**asdict(self.session.split_facts(bad)), groups=self.subgroups.groups),
            method="grad-cam" if self.model.gender_direction() is None else "cam",
            batch_size=self.config.batch_size,
            backend=self.config.backend,
            precision=self.config.precision,
            cells=self.map_cells,
            limit=averages.limit,
            averages=tuple(averages.averages),
            differences=tuple(averages.differences),
            deletion=check,
            regions=tuple(regions),
            masks=masks,
            run=self.session.compute_facts(self.began, seconds, self.computed),
            arrays=averages.arrays,
        )
        write_maps_table(self.out / "maps.csv", self.session, self.blocks, log_odds)
        draw_pictures(self.session, found, self.blocks, shown, pixels, log_odds)
        found.write(self.out)
        print_summary(self.config, found)

    def map_pass(self) -> npt.NDArray[np.int64] | None:
        """Every image's map; None if it was stopped, else on rank 0 the sums of the faces by subgroup."""
        progress = Progress(self.out / MAPS, self.out / WORK, self.blocks, self.ranks, self.origin, anew=False)
        if self.ranks.is_first:
            (self.out / FILE).unlink(missing_ok=True)
        self.computed = len(self.blocks.samples) - progress.images_there
        faces = FaceSums(self.subgroups.count, self.session.trained.image_size, self.ranks.device)

        def work(batch: Batch) -> Rows:
            with self.session.precision.autocast():
                maps, log_odds = evidence_maps(self.model, batch.images)
            check_finite(maps, log_odds)
            return {"maps": maps.cpu().numpy(), "log_odds": log_odds.cpu().numpy()}

        def count(batch: Batch, rows: Rows) -> None:
            faces.add(batch.images, self.subgroups.codes(batch.samples, rows["log_odds"]))

        shapes: dict[str, tuple[int, ...]] = {"maps": self.map_cells, "log_odds": ()}
        if not run_pass(
            self.session,
            self.config.split,
            progress,
            shapes,
            work,
            count=count,
            sums=lambda: {"faces": faces.numpy()},
        ):
            return None
        return progress.finish().get("faces", np.empty(0, dtype=np.int64))

    def deletion_pass(self, codes: npt.NDArray[np.int64]) -> Deletion | None:
        """The deletion check, on rank 0; None if it was stopped, not asked for, or would mask the whole image."""
        config = self.config
        if not config.deletion or self.map_cells == ONE_CELL:
            return None
        chosen = draw_images(np.flatnonzero(codes >= 0), config.deletion, config.seed, "deletion")
        blocks = blocks_of(self.session, config.split, chosen)
        origin = {**self.origin, "images": config.deletion, "fractions": list(config.fractions), "seed": config.seed}
        progress = Progress(self.out / "deletion", self.out / WORK, blocks, self.ranks, origin, anew=True)

        def work(batch: Batch) -> Rows:
            maps = read_rows(self.out / MAPS, self.blocks, "maps", batch.samples)
            gender = self.subgroups.gender[batch.samples]
            orders = cell_orders(maps, gender, batch.samples, config.seed)
            counts = cells_masked(config.fractions, self.map_cells[0] * self.map_cells[1])
            seen = seen_images(batch.images, orders, counts, self.map_cells)
            values = torch.stack([self.log_odds(images) for images in seen], 1).cpu().numpy()
            return {"log_odds": np.where(gender[:, None] == 1, values, -values)}

        shapes = {"log_odds": (1 + 2 * len(config.fractions),)}
        if not run_pass(self.session, config.split, progress, shapes, work, stage=False):
            return None
        progress.finish()
        if not self.ranks.is_first:
            return None
        rows = read_rows(self.out / "deletion", blocks, "log_odds", blocks.samples)
        cells = self.map_cells[0] * self.map_cells[1]
        return deletion(rows, self.subgroups.gender[blocks.samples], config.fractions, cells, config.seed)

    def log_odds(self, images: torch.Tensor) -> torch.Tensor:
        """Log-odds of male (n,) of images."""
        with self.session.precision.autocast():
            logits = self.model(images).gender
        assert logits is not None
        return log_odds(logits)


def print_summary(config: CamConfig, found: Cam) -> None:
    """Prints the most important numbers, and where the files are."""
    out = config.out_dir
    counts = ", ".join(f"{a.images:,} {a.name}" for a in found.averages if not a.group and not a.outcome)
    down, across = found.cells
    how = f"{found.method}, {found.precision}"
    maps = plural(found.data.images, "heat map")
    print(f"{maps} ({how}) of {down}x{across} cells ({counts}) in {out / 'maps'}")
    if found.deletion:
        step = next((s for s in found.deletion.steps if s.fraction >= 0.3), found.deletion.steps[-1])
        print(
            f"deletion check of {plural(found.deletion.images, 'image')}: accuracy "
            f"{found.deletion.unmasked.accuracy:.2%}, with {step.cells} of {plural(down * across, 'cell')} masked "
            f"{step.hottest.accuracy:.2%} (hottest) and {step.random.accuracy:.2%} (random)"
        )
    if config.regions:
        print(f"{plural(found.masks, 'image has', 'images have')} a mask: {out / 'regions.csv'}")
    print(f"numbers: {out / FILE} and {results.ARRAYS}, to look at: {out / 'sheet.png'}")

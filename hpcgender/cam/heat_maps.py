"""Heat maps of a split with a checkpoint: every image's map, averages, whether they tell the truth, and pictures."""

from __future__ import annotations

import math
import time

import numpy as np
import numpy.typing as npt
import torch

from hpcgender.cam import results
from hpcgender.cam.averages import Averages, sum_maps
from hpcgender.cam.cells import Cells
from hpcgender.cam.deletion import cell_orders, cells_masked, deletion, draw_images, seen_images
from hpcgender.cam.faces import FaceSums
from hpcgender.cam.maps import difference, evidence_maps, filled, map_cells
from hpcgender.cam.passes import Inputs, run_pass
from hpcgender.cam.pictures import draw_overlays, draw_pictures, examples, faces_of
from hpcgender.cam.progress import Progress
from hpcgender.cam.results import FILE, Cam, Deletion
from hpcgender.cam.shards import Plan, Rows, read_rows
from hpcgender.cam.tables import regions_of, write_maps_table
from hpcgender.checkpoint import digest, load_trained
from hpcgender.commands.cam import CamConfig
from hpcgender.data.loader import Batch
from hpcgender.data.order import Samples
from hpcgender.distributed import process_group, redirect_output
from hpcgender.evaluate.facts import checkpoint_facts, run_facts
from hpcgender.stop import StopSignal
from shard_tools.base.errors import REQUEUE, UserError
from shard_tools.manifest import read_manifest


@torch.no_grad()
def cam(config: CamConfig) -> int:
    """Computes maps as `config` says; rank 0 writes what results.py lists.

    Returns 0, or REQUEUE if it was asked to stop before the end: the same command then goes on.
    """
    config.check()
    manifest = read_manifest(config.data)
    with StopSignal(config.stop_after) as stop, process_group() as ranks:
        redirect_output(config.out_dir / "logs", ranks.rank)
        trained = load_trained(config.checkpoint, ranks.device, manifest.classes)
        if "gender" not in trained.config.tasks:
            raise UserError(f"{config.checkpoint} does not tell gender: there is no evidence to draw")
        trained.model.requires_grad_(False)
        torch.backends.cudnn.benchmark = False  # it may find other algorithms the next time, which round otherwise
        torch.backends.cudnn.deterministic = True
        Run(Inputs(config, manifest, manifest.index(config.split), trained, ranks, stop)).go_on()
        ranks.gather(None)  # a rank that ends with another code than 0 has the others ended
        if stop.reason and ranks.is_first:
            print(f"stopped by {stop.reason}, what is done is kept: give the same command to go on", flush=True)
        ranks.broadcast(None)
    return REQUEUE if stop.reason else 0


class Run:
    """One start of the work: a pass for the maps, one for the deletion check, and what is made of their results."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs, self.config, self.ranks = inputs, inputs.config, inputs.ranks
        self.model, self.out = inputs.trained.model, inputs.config.out_dir
        self.began = time.time()
        self.computed = 0
        """Images whose maps this start computed, on all ranks."""
        self.map_cells = map_cells(self.model, inputs.trained.image_size, self.ranks.device)
        self.cells = Cells(inputs.index, inputs.trained.classes)
        self.plan = self.plan_of(np.arange(len(inputs.index)))
        self.about = {
            "checkpoint": digest(self.config.checkpoint),
            "data set": inputs.manifest.sha256,
            "split": self.config.split,
            "batch size": self.config.batch_size,
            "backend": self.config.backend,
        }
        """What decides the maps."""

    def plan_of(self, samples: Samples) -> Plan:
        return Plan(samples, self.inputs.index["key"][samples], self.config.batch_size)

    def go_on(self) -> None:
        """Does what is missing, unless a stop is requested before the end."""
        faces = self.map_pass()
        if faces is None:
            return
        seconds = time.time() - self.began
        log_odds = read_rows(self.out / "maps", self.plan, "log_odds", self.plan.samples)
        bad = int(np.isnan(log_odds).sum())
        if bad > math.ceil(self.config.max_bad * len(log_odds)):
            raise UserError(f"{bad} of {len(log_odds)} images do not decode, more than --max-bad allows: raise it")
        codes = self.cells.codes(self.plan.samples, log_odds)
        if not (codes >= 0).any():
            raise UserError(
                f"no image of known gender in {self.config.split} of {self.config.data} decodes: nothing to average"
            )
        check = self.deletion_pass(codes)
        if self.inputs.stop.reason:
            return
        sums = sum_maps(self.out / "maps", self.plan, self.cells, self.ranks, self.map_cells)
        regions, masks = regions_of(self.inputs, self.cells, self.plan, codes)
        shown = examples(self.cells.gender, codes, self.config.examples)
        pixels = faces_of(self.inputs, shown)
        draw_overlays(self.inputs, self.plan, log_odds)
        if not self.ranks.is_first:
            return
        averages = Averages(self.cells, sums, faces)
        found = Cam(
            checkpoint=checkpoint_facts(self.config.checkpoint, self.inputs.trained),
            data=self.data_facts(bad),
            method="grad-cam" if self.model.gender_direction() is None else "cam",
            batch_size=self.config.batch_size,
            backend=self.config.backend,
            cells=self.map_cells,
            limit=averages.limit,
            averages=tuple(averages.averages),
            differences=tuple(averages.differences),
            deletion=check,
            regions=tuple(regions),
            masks=masks,
            run=run_facts(self.ranks, self.began, seconds, self.computed / seconds),
            arrays=averages.arrays,
        )
        write_maps_table(self.out / "maps.csv", self.inputs, self.plan, log_odds)
        draw_pictures(self.inputs, found, self.plan, shown, pixels, log_odds)
        found.write(self.out)
        say(self.config, found)

    def map_pass(self) -> npt.NDArray[np.int64] | None:
        """Every image's map; None if it was stopped, else on rank 0 the sums of the faces by cell."""
        if self.ranks.is_first:
            (self.out / FILE).unlink(missing_ok=True)
        progress = Progress(self.out / "maps", self.plan, self.ranks, self.about)
        self.computed = len(self.plan.samples) - progress.images_there
        faces = FaceSums(self.cells.count, self.inputs.trained.image_size, self.ranks.device)

        def work(batch: Batch) -> Rows:
            results = evidence_maps(self.model, filled(batch.images, self.config.batch_size))
            maps, log_odds = (result[: len(batch.samples)].cpu().numpy() for result in results)
            if not (np.isfinite(maps).all() and np.isfinite(log_odds).all()):
                raise UserError("the model says nan of some images: it diverged in training, use an earlier checkpoint")
            rows = {"maps": maps, "log_odds": log_odds}
            faces.add(batch.images, self.cells.codes(batch.samples, rows["log_odds"]))
            return rows

        shapes: dict[str, tuple[int, ...]] = {"maps": self.map_cells, "log_odds": ()}
        if not run_pass(self.inputs, progress, shapes, work, lambda: {"faces": faces.numpy()}, stage=True):
            return None
        return progress.finish().get("faces", np.empty(0, dtype=np.int64))

    def deletion_pass(self, codes: npt.NDArray[np.int64]) -> Deletion | None:
        """The deletion check, on rank 0; None if it was stopped, or not asked for."""
        config = self.config
        if not config.deletion:
            return None
        plan = self.plan_of(draw_images(np.flatnonzero(codes >= 0), config.deletion, config.seed, "deletion"))
        about = {**self.about, "images": config.deletion, "fractions": list(config.fractions), "seed": config.seed}
        progress = Progress(self.out / "deletion", plan, self.ranks, about, anew=True)

        def work(batch: Batch) -> Rows:
            maps = read_rows(self.out / "maps", self.plan, "maps", batch.samples)
            orders = cell_orders(maps, self.cells.gender[batch.samples], batch.samples, config.seed)
            counts = cells_masked(config.fractions, self.map_cells[0] * self.map_cells[1])
            seen = seen_images(batch.images, orders, counts, self.map_cells)
            log_odds = torch.stack([self.log_odds(images) for images in seen], 1)[: len(maps)].cpu().numpy()
            return {"log_odds": np.where(self.cells.gender[batch.samples, None] == 1, log_odds, -log_odds)}

        if not run_pass(self.inputs, progress, {"log_odds": (1 + 2 * len(config.fractions),)}, work):
            return None
        progress.finish()
        if not self.ranks.is_first:
            return None
        rows = read_rows(self.out / "deletion", plan, "log_odds", plan.samples)
        cells = self.map_cells[0] * self.map_cells[1]
        return deletion(rows, self.cells.gender[plan.samples], config.fractions, cells, config.seed)

    def log_odds(self, images: torch.Tensor) -> torch.Tensor:
        """What the model says of up to a batch of images, (batch size,)."""
        features = self.model.gender_features(filled(images, self.config.batch_size))
        return difference(self.model.gender_logits(features))

    def data_facts(self, left_out: int) -> results.Data:
        manifest = self.inputs.manifest
        return results.Data(
            path=str(self.config.data.resolve()),
            source=manifest.source,
            manifest=manifest.sha256,
            split=self.config.split,
            images=len(self.plan.samples),
            left_out=left_out,
            classes=manifest.classes,
            groups=self.cells.groups,
        )


def say(config: CamConfig, found: Cam) -> None:
    """Prints what was found, and where it is."""
    out = config.out_dir
    counts = ", ".join(f"{a.images} {a.name}" for a in found.averages if not a.group and not a.told)
    down, across = found.cells
    print(f"{found.data.images} heat maps ({found.method}) of {down}x{across} cells ({counts}) in {out / 'maps'}")
    if found.data.left_out:
        print(f"{found.data.left_out} of {found.data.images} images do not decode and are left out: the logs name them")
    if found.deletion:
        step = next((s for s in found.deletion.steps if s.fraction >= 0.3), found.deletion.steps[-1])
        print(
            f"deletion check of {found.deletion.images} images: accuracy {found.deletion.unmasked.accuracy:.2%}, with "
            f"{step.cells} of {down * across} cells masked {step.hottest.accuracy:.2%} (hottest) and "
            f"{step.random.accuracy:.2%} (random)"
        )
    if config.regions:
        print(f"{found.masks} images have a mask: {out / 'regions.csv'}")
    print(f"numbers: {out / FILE} and {results.ARRAYS}, to look at: {out / 'sheet.png'}")

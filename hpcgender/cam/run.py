"""Heat maps of a split with a checkpoint: every image's map, the averages, and a sheet to look at."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hpcgender.cam.config import CamConfig
from hpcgender.cam.maps import Average, FaceSums, Maps, activation_maps, class_averages
from hpcgender.cam.sheet import Panel, draw_sheet
from hpcgender.checkpoint import Trained
from hpcgender.data.decoders import to_pixels
from hpcgender.data.order import Samples
from hpcgender.evaluate.inputs import gather_in_order, open_inputs
from shard_tools.commands import UserError
from shard_tools.manifest import Index

Faces = dict[int, tuple[npt.NDArray[np.uint8], float]]
"""Of some samples, by number, the pixels and the difference of the logits, male minus female."""


@torch.inference_mode()
def cam(config: CamConfig) -> None:
    """Computes maps as `config` says; rank 0 writes maps.npy, maps.csv, averages.npz and sheet.png."""
    with open_inputs(config) as inputs:
        ranks, trained, index = inputs.ranks, inputs.trained, inputs.loader.index
        chosen = examples(index["gender"], config.examples, len(trained.classes))
        if not len(chosen):
            raise UserError(
                f"{config.split} in {config.data} has no image of known gender: there is nothing to average"
            )
        if trained.model.gender_direction() is None:
            raise UserError(f"{config.checkpoint} is a {trained.name}: heat maps need a resnet that tells gender")
        faces = FaceSums(len(trained.classes), trained.image_size, ranks.device)
        samples: list[Samples] = []
        maps: list[Maps] = []
        shown: Faces = {}
        for batch in inputs.loader.epoch(0):
            features = trained.model.features(batch.images.to(memory_format=torch.channels_last))
            maps.append(activation_maps(trained.model, features).cpu().numpy())
            samples.append(batch.samples)
            faces.add(batch.images, batch.gender)
            logits = trained.model.classify(features).gender
            for place in np.flatnonzero(np.isin(batch.samples, chosen)):
                pixels = to_pixels(batch.images[place]).permute(1, 2, 0)
                assert logits is not None
                shown[int(batch.samples[place])] = pixels.cpu().numpy(), float(logits[place, 1] - logits[place, 0])
        all_maps = gather_in_order(inputs, samples, maps)
        shown_parts = ranks.gather(shown)
        mean_faces = faces.means(ranks)
        if all_maps is not None:
            all_shown = {sample: face for part in shown_parts for sample, face in part.items()}
            write_results(config, trained, index, all_maps, mean_faces, chosen, all_shown)


def examples(gender: npt.NDArray[np.integer], count: int, classes: int) -> Samples:
    """Up to `count` samples of each class, spread over the index: int64, class after class."""
    chosen = []
    for value in range(classes):
        of_class = np.flatnonzero(gender == value)
        chosen.append(of_class[np.linspace(0, len(of_class) - 1, min(count, len(of_class))).astype(np.int64)])
    return np.concatenate(chosen)


def write_results(
    config: CamConfig,
    trained: Trained,
    index: Index,
    maps: Maps,
    mean_faces: npt.NDArray[np.float64],
    chosen: Samples,
    shown: Faces,
) -> None:
    """Writes the maps in the order of the index, their averages, and the sheet."""
    config.out_dir.mkdir(parents=True, exist_ok=True)
    np.save(config.out_dir / "maps.npy", maps)
    evidence = maps.mean((1, 2))  # nan: the image does not decode
    with (config.out_dir / "maps.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("key", "gender", "mean_evidence"))
        for row, mean in zip(index, evidence, strict=True):
            gender = trained.classes[row["gender"]] if row["gender"] >= 0 else ""
            writer.writerow((row["key"].decode(), gender, "" if np.isnan(mean) else f"{mean:.6f}"))
    averages = class_averages(maps, np.where(np.isnan(evidence), -1, index["gender"]), len(trained.classes))
    arrays: dict[str, Any] = {}
    for name, average, face in zip(trained.classes, averages, mean_faces, strict=True):
        if average.count:
            arrays |= {name: average.mean, f"count_{name}": average.count, f"face_{name}": face}
    if all(average.count for average in averages):
        arrays["difference"] = averages[1].mean - averages[0].mean
    np.savez(config.out_dir / "averages.npz", **arrays)
    draw_sheet(
        config.out_dir / "sheet.png",
        f"Where {trained.name} (epoch {trained.epoch}) sees {' and '.join(trained.classes)} in {config.split} of "
        f"{config.data.resolve().name}. Single images have their label, and what it says",
        average_panels(trained.classes, averages, mean_faces),
        [
            [
                Panel(f"{name}: {said(shown[sample][1], trained)}", shown[sample][0], maps[sample])
                for sample in chosen.tolist()
                if index["gender"][sample] == value and sample in shown
            ]
            for value, name in enumerate(trained.classes)
            if averages[value].count
        ],
        trained.classes,
    )
    counts = ", ".join(f"{average.count} {name}" for name, average in zip(trained.classes, averages, strict=True))
    print(f"{len(maps)} heat maps of {maps.shape[1]}x{maps.shape[2]} cells ({counts}) in {config.out_dir / 'maps.npy'}")
    print(f"averages: {config.out_dir / 'averages.npz'}, to look at: {config.out_dir / 'sheet.png'}")


def said(difference: float, trained: Trained) -> str:
    """The class that a difference of the logits stands for, and how sure that is."""
    male = 1 / (1 + np.exp(-np.float64(difference)))
    return f"{trained.classes[int(male > 0.5)]} {max(male, 1 - male):.0%}"


def average_panels(
    classes: tuple[str, ...], averages: list[Average], mean_faces: npt.NDArray[np.float64]
) -> list[Panel]:
    """The average of each class over its mean face, and their difference over the mean of both; of those there are."""
    panels = [
        Panel(f"average {name} (n={average.count})", face, average.mean)
        for name, average, face in zip(classes, averages, mean_faces, strict=True)
        if average.count
    ]
    if len(panels) < len(classes):
        return panels
    difference = averages[1].mean - averages[0].mean
    return [*panels, Panel(f"{classes[1]} minus {classes[0]}", mean_faces.mean(0), difference)]

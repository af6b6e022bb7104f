"""Misclassified images: a list of all, the most confident mistakes first, and a sheet of the first of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcgender.evaluate.predictions import Predictions, write_csv
from shard_tools.base.files import whole_file
from shard_tools.base.text import percent, plural
from shard_tools.images import ImageError, reencode
from shard_tools.inspect.faces import SIDE, Face, face_sheet, read_image, years
from shard_tools.manifest import CLASSES, Manifest

LIST, SHEET = "errors.csv", "errors.png"
SHOWN = 48
"""Faces on the sheet, at most."""


def mistakes(predictions: Predictions) -> Predictions:
    """The images of which the wrong gender is predicted, in the order of confidence."""
    wrong = predictions.rows(predictions.gender_known & (predictions.prediction != predictions.label))
    return wrong.rows(np.argsort(-np.abs(wrong.logit), kind="stable"))


def write_errors(directory: Path, predictions: Predictions, manifest: Manifest, split: str, title: str) -> int:
    """Writes the list, and the sheet if there is any mistake; returns how many there are.

    The sheet has the 48 most confident mistakes, sorted by label. UserError if a shard cannot be read.
    """
    wrong = mistakes(predictions)
    write_csv(directory / LIST, wrong)
    (directory / SHEET).unlink(missing_ok=True)
    if not len(wrong):
        return 0
    shown = wrong.rows(np.arange(min(SHOWN, len(wrong))))
    by_label = shown.rows(np.argsort(shown.label, kind="stable"))
    labelled = int(np.count_nonzero(predictions.gender_known))
    women = int(np.count_nonzero(wrong.label == 0))
    by_gender = f"{plural(women, 'woman', 'women')}, {plural(len(wrong) - women, 'man', 'men')}"
    counted = f"{len(wrong):,} of {plural(labelled, 'image')} classified wrongly: {by_gender}"
    if len(shown) < len(wrong):
        counted += f". The {len(shown)} most confident mistakes are shown"
    with whole_file(directory / SHEET) as file:
        face_sheet(faces_of(by_label, manifest, split), title, counted).save(file, "PNG")
    return len(wrong)


def faces_of(wrong: Predictions, manifest: Manifest, split: str) -> list[Face]:
    """The mistakes as faces of the sheet: label, prediction, and its probability."""
    grouped, aged = wrong.group.any(), not np.isnan(wrong.age).all()
    index = manifest.index(split)
    rows = {key: number for number, key in enumerate(index["key"].tolist())}
    faces = []
    for place, key in enumerate(wrong.key.tolist()):
        predicted, probability = int(wrong.prediction[place]), float(wrong.probability[place])
        confidence = max(probability, 1 - probability)
        try:
            jpeg = reencode(read_image(manifest, split, index[rows[key.encode()]]), SIDE, 92)
        except ImageError:
            jpeg = None
        label = int(wrong.label[place])
        details = [f"taken for {CLASSES[predicted]}, {below_100(confidence)}"]
        details += [wrong.group[place] or "group unknown"] if grouped else []
        age = float(wrong.age[place])
        faces.append(Face(label, CLASSES[label], years(age) if aged else "", (*details, key), jpeg))
    return faces


def below_100(fraction: float) -> str:
    """A fraction in per cent, with as many decimals as it takes to differ from 100 %, two at most."""
    shown = (percent(fraction, digits) for digits in (0, 1, 2) if round(100 * fraction, digits) < 100)
    return next(shown, "over 99.99 %")

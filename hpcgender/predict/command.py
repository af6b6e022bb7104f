"""`hpcgender predict`: all images that its arguments name, those that cannot be used listed at the end."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from hpcgender.commands.predict import PredictConfig
from hpcgender.predict.images import Listing
from hpcgender.predict.model import Prediction, load
from hpcgender.predict.output import Pictures, line_of, print_json, row_of, write_csv, write_parquet
from shard_tools.base.errors import BAD_INPUT, FAILED
from shard_tools.base.progress import progress
from shard_tools.base.text import printable


def predict(config: PredictConfig) -> int:
    """Prints or writes the prediction of each image; returns FAILED if some cannot be used, BAD_INPUT if none can."""
    config.check()
    checkpoint = config.checkpoint_path
    listing = Listing(config.images, sys.stdin.buffer)
    for note in listing.notes:
        print(note, file=sys.stderr)
    model = load(
        checkpoint,
        evaluation=config.evaluation,
        threshold=config.threshold,
        backend=config.backend,
        precision=config.precision,
        batch_size=config.batch_size,
        crop=config.crop,
    )
    pictures = Pictures(config.cam) if config.cam else None
    lines = not (config.json or config.csv or config.parquet)
    rows: list[dict[str, Any]] = []
    listed: list[Prediction] = []
    announced = False
    with ExitStack() as exits:
        # Lines on a terminal are progress enough, and a bar would run through them.
        quiet = len(listing.images) <= config.batch_size or (lines and sys.stdout.isatty())
        advance = None if quiet else exits.enter_context(progress("predicting", len(listing.images)))
        for found in model.predictions(listing.images, heat_maps=bool(pictures)):
            if not found.error and not announced:
                print(printable(f"by {checkpoint}: {model.words}"), file=sys.stderr)
                announced = True
            picture = pictures.write(found, len(rows)) if pictures and not found.error else None
            rows.append(row_of(found, picture))
            if lines and not found.error:
                print(line_of(found))
            if found.error or found.note:
                listed.append(replace(found, heat_map=None, face=None))  # views of its whole batch
            if advance:
                advance(1)
    if config.json:
        print_json(rows)
    if config.csv:
        write_csv(config.csv, rows)
    if config.parquet:
        write_parquet(config.parquet, rows)
    errors = [found for found in listed if found.error]
    sys.stdout.flush()
    for found in listed:
        what = f"cannot use {found.image}: {found.error}" if found.error else f"{found.image}: {found.note}"
        print(printable(f"hpcgender: {what}"), file=sys.stderr)
    if errors and len(rows) > 1:
        print(f"hpcgender: {len(errors)} of {len(rows)} images cannot be used", file=sys.stderr)
    return 0 if not errors else BAD_INPUT if len(errors) == len(rows) else FAILED

"""Compares evaluated runs: measures their speed, prints tables or JSON, writes a CSV file, a picture and a page."""

from __future__ import annotations

import json

from hpcgender.commands.compare import CompareConfig
from hpcgender.compare.charts import picture
from hpcgender.compare.contenders import find_contenders
from hpcgender.compare.page import checkpoint_of, images_of, page
from hpcgender.compare.robustness import robust_models
from hpcgender.compare.robustness_tables import robustness_verdicts
from hpcgender.compare.rows import Comparison, as_csv, as_json, row, verdicts_of
from hpcgender.compare.seeds import compared
from hpcgender.compare.speed import device_name, measure_speeds
from hpcgender.compare.tables import tables
from hpcgender.distributed import select_device
from hpcgender.models.table import cost
from shard_tools.base.figures import as_png
from shard_tools.base.files import write_file
from shard_tools.base.text import print_tables, printable


def compare(config: CompareConfig) -> None:
    """Prints and writes what `config` asks for; UserError for what the user can correct."""
    config.check()
    contenders = find_contenders(config)
    models = [(contender.model, contender.results.checkpoint.image_size) for contender in contenders]
    selected = select_device()
    speeds = measure_speeds(models, config.batch_size, config.rounds, selected)
    device = device_name(selected)
    groups, pairs = compared(contenders)
    robust, left_out = robust_models(contenders)
    comparison = Comparison(
        data=contenders[0].results.data,
        device=device,
        rows=tuple(
            row(contender, cost(*model), speed)
            for contender, model, speed in zip(contenders, models, speeds, strict=True)
        ),
        groups=groups,
        pairs=pairs,
        robustness=robust,
        verdicts=(*verdicts_of(contenders, pairs), *robustness_verdicts(robust), *left_out),
    )
    written = {}
    if config.csv:
        write_file(config.csv, as_csv(comparison.rows).encode())
        written["rows"] = config.csv
    if config.picture:
        write_file(config.picture, as_png(picture(comparison, contenders)))
        written["picture"] = config.picture
    if config.html:
        write_file(config.html, page(comparison, contenders).encode())
        written["page"] = config.html
    if config.json:
        print(json.dumps(as_json(comparison), indent=1, allow_nan=False))
        return
    print(printable(images_of(comparison)))
    for contender in contenders:
        print(printable(f"{contender.name}: {checkpoint_of(contender)}"))
    print()
    print_tables(*tables(comparison).values())
    print()
    for line in comparison.verdicts:
        print(printable(line))
    print(f"times: {printable(device)}")
    for what, path in written.items():
        print(f"{what}: {path}")

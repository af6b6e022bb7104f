"""Compares evaluated runs and shows it as asked: in tables, as JSON, CSV, a picture, a page."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from hpcgender.commands.compare import CompareConfig
from hpcgender.compare.charts import picture
from hpcgender.compare.contenders import find_contenders
from hpcgender.compare.page import of_images, page, said_of
from hpcgender.compare.paired import pairs
from hpcgender.compare.rows import Comparison, as_csv, as_json, row
from hpcgender.compare.speed import device_said, measure_speeds
from hpcgender.compare.tables import tables
from hpcgender.distributed import process_group
from hpcgender.models.table import cost
from hpcgender.report.figures import as_png
from shard_tools.inspect.inspection import write_file
from shard_tools.inspect.statistics import printable
from shard_tools.inspect.tables import Table, printed


def compare(config: CompareConfig) -> None:
    """Does what `config` asks; raises UserError for what the user can mend."""
    config.check()
    contenders = find_contenders(config)
    models = [(contender.model, contender.evaluation.checkpoint.image_size) for contender in contenders]
    with process_group() as ranks:
        speeds = measure_speeds(models, config.batch_size, config.rounds, ranks.device)
        device = device_said(ranks.device)
    comparison = Comparison(
        data=contenders[0].evaluation.data,
        device=device,
        rows=tuple(
            row(contender, cost(*model), speed)
            for contender, model, speed in zip(contenders, models, speeds, strict=True)
        ),
        pairs=tuple(pairs([(contender.name, contender.predictions) for contender in contenders])),
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
    print(printable(of_images(comparison)))
    for contender in contenders:
        print(printable(f"{contender.name}: {said_of(contender)}"))
    with printed() as console:
        for table in tables(comparison):
            print_table(console, table)
    print(f"\ntimes: {printable(device)}")
    for what, path in written.items():
        print(f"{what}: {path}")


def print_table(console: Console, table: Table) -> None:
    """The table below its title."""
    shown = RichTable(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for number, column in enumerate(table.columns):
        shown.add_column(Text(column), justify="right" if number else "left", overflow="fold")
    for line in table.rows:
        shown.add_row(*(Text(printable(cell)) for cell in line))
    console.print()
    console.print(Text(table.title, style="bold"))
    console.print(shown)

"""Prints and writes the matrix of runs that were evaluated."""

from __future__ import annotations

import json

from hpcgender.commands.matrix import MatrixConfig
from hpcgender.matrix.cells import matrix_of
from hpcgender.matrix.tables import as_csv, as_json, heat_map, notes, section, tables
from hpcgender.report.sources import find_parts
from shard_tools.base.errors import UserError
from shard_tools.base.figures import as_png
from shard_tools.base.files import write_file
from shard_tools.base.page import render
from shard_tools.base.text import plural, print_tables, printable


def matrix(config: MatrixConfig) -> None:
    """Prints and writes what `config` asks for; UserError for what the user can correct."""
    config.check()
    found = matrix_of(find_parts(config.evaluated))
    if not found.cells:
        raise UserError("none of these has an evaluation of gender on a test set: hpcgender evaluate --help")
    written = {}
    if config.csv:
        write_file(config.csv, as_csv(found).encode())
        written["cells"] = config.csv
    if config.picture:
        write_file(config.picture, as_png(heat_map(found)))
        written["picture"] = config.picture
    if config.html:
        title = f"{plural(len(found.models), 'model')} on {plural(len(found.test_sets), 'test set')}"
        page = render("hpcgender.report", "matrix_page.html", title=title, it=section(found))
        write_file(config.html, page.encode())
        written["page"] = config.html
    if config.json:
        print(json.dumps(as_json(found), indent=1, allow_nan=False))
        return
    print_tables(*tables(found))
    print()
    for line in notes(found):
        print(printable(line))
    for what, path in written.items():
        print(f"{what}: {printable(str(path))}")

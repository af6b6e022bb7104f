"""Writes the report."""

from __future__ import annotations

from hpcgender.commands.report import ReportConfig
from hpcgender.report.page import page
from hpcgender.report.sources import find_parts
from shard_tools.inspect.inspection import write_file
from shard_tools.inspect.statistics import printable


def report(config: ReportConfig) -> None:
    """Writes the page that `config` asks for; raises UserError for what the user can mend."""
    config.check()
    parts = find_parts(config.inputs)
    title = config.title or f"Report on {', '.join(part.name for part in parts)}"
    content = page(parts, printable(title), config.faces).encode()
    write_file(config.out, content)
    evaluations, cams = (sum(map(len, found)) for found in ([p.evaluations for p in parts], [p.cams for p in parts]))
    print(f"models: {len(parts)}, evaluations: {evaluations}, heat maps: {cams}")
    print(f"page: {printable(str(config.out))} ({len(content) / 1e6:.1f} MB)")

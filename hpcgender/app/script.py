"""What Streamlit runs for each visitor, and again whenever one changes something: the page of the command's options."""

import sys

from hpcgender.app.page import draw
from hpcgender.app.shown import opened
from hpcgender.commands.app import AppConfig
from shard_tools.base.commands import parse_options

if __name__ == "__main__":  # not in a process that the page starts by spawn
    draw(opened(parse_options(AppConfig, "hpcgender app", sys.argv[1:])))

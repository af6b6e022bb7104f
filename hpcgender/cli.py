"""The program `hpcgender` and `python -m hpcgender`."""

from hpcgender.commands import HPCGENDER

main = HPCGENDER.main
"""Runs the command that its arguments name, or else the command line, and exits with its code."""

"""Runs a command on several nodes, of a scheduler or of this machine."""

from pathlib import Path

RECORD = "HPCGENDER_RECORD"
"""The environment variable with which a submission passes the path of its record to its job, without `-<job id>`."""

CODE = Path(__file__).resolve().parents[2]
"""The checkout, whose git revision is recorded."""

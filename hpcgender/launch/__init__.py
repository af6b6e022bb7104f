"""Runs a command on several nodes, of a scheduler or of this machine."""

SUBMITTED = "HPCGENDER_SUBMITTED"
"""The environment variable in which a submitted job finds, as JSON, the path of its record, without `-<job id>`, the
site's settings when it was submitted, and the number of nodes that were asked for."""

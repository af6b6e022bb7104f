"""Slurm: everything here that knows its commands, variables and words."""

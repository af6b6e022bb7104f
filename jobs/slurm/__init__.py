"""Slurm: its commands, variables, states and reasons."""

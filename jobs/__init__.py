"""Runs a command as ranks on hosts: through Slurm, Grid Engine or on this machine. Independent of training."""

"""A command to ranks on machines: Slurm, Grid Engine or this machine. Knows nothing about training."""

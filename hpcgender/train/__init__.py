"""Training: the loop, the training step, checkpoints and logs."""

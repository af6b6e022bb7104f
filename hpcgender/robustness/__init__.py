"""Robustness: what blur, noise, compression and the like do to the scores of a checkpoint, and to whose first."""

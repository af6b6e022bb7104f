"""Evaluation: every image of a split once, on any number of ranks."""

"""Examines a machine or a job's nodes before a training: each check is a function that returns a `Finding`."""

"""Where the curves of a training go besides metrics.jsonl: a file for each, which tracker.py says what it is."""

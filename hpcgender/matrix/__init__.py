"""Models against test sets: a score for each pair that was evaluated."""

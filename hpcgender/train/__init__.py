"""Training: the options, the loop, the schedule, and what it says."""

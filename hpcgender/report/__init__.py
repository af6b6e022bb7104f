"""The report: one page that says what was trained on what, how well it tells, for whom it fails, where it looks."""

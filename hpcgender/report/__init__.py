"""`hpcgender report`: one page about runs, evaluations and heat maps."""

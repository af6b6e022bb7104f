"""The page of `hpcgender app`: models on photos, and what their evaluations found."""

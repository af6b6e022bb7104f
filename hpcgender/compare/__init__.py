"""`hpcgender compare`: runs on the same images, their scores, their cost and whether they differ."""

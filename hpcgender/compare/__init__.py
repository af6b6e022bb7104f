"""Comparison: runs that were evaluated on the same images, by what they tell and by what they cost."""

"""Crops faces out of photos by a recipe, which manifests and checkpoints hold: any photo can be cropped by it later."""

"""Prediction: the class of single image files."""

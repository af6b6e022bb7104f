"""Shards to a model to answers: training, evaluation, prediction and heat maps of face-gender classifiers."""

__version__ = "0.1.0"

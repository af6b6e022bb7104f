"""Estimates what a training takes, from an examination or from published figures."""

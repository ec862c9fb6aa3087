"""Tells whether a dataset may be trained on."""

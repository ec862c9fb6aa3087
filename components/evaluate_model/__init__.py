"""Tells whether a model may be published."""

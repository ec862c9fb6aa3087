"""Runs an exported model over a dataset."""

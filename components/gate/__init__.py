"""Fails the run when a verdict is not `pass`."""

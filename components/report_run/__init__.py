"""Writes the page that sums up a run, also when it failed."""

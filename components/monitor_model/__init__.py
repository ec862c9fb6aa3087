"""Tells whether a served model still gets the data it knows, and is as good as it was."""

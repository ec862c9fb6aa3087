"""Pipelines: wiring, configuration, running locally, submitting."""

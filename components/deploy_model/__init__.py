"""Puts a published model into service on KServe, step by step, or back to the one before."""

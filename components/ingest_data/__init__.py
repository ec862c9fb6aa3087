"""Reads one window of spans into train and eval splits."""

"""Logged predictions, whoever logged them: one window of them as batches of one form, and labels that came later."""

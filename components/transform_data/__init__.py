"""Turns raw columns into model inputs, the same way in training and serving."""

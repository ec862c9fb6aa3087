"""Explains predictions: which features they rest on, row by row and over all, and where the model is weakest."""

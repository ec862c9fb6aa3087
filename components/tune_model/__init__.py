"""Tries kinds of models and hyperparameters on rows they did not learn from, and chooses one."""

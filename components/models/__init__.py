"""Kinds of models: how each is fitted, and as what it goes into the SavedModel."""

"""Starts training, or tells somebody, as a verdict of monitoring asks for."""

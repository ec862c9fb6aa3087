"""Puts predictions of a span into their place, whole or not at all, and tells how they compare with the span before."""

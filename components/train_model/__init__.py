"""Trains one model and exports it with its preprocessing inside."""

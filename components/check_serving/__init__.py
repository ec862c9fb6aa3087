"""Starts the real model server on the exported model and asks it golden and hostile requests."""

"""Decides the events of a Kafka topic, each exactly once, with the model in production."""

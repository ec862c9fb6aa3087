"""Gives events of a Kafka topic their window features, each exactly once; the stream that decides reads them then."""

"""What TFDV computes of rows, and how it is held against a schema: for datasets and for logged requests."""

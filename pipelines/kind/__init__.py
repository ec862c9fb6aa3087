"""A kind cluster with everything that the suite stands on: `python -m pipelines kind`."""

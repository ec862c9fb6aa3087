"""Columns of the request log beside features, keys and outputs: what the predictor writes and monitoring reads."""

TIME = "request_time"
"""timestamp, UTC, of the answer."""
REQUEST_ID = "request_id"
REQUEST_ROW = "request_row"
"""The row's place in its request, from 0; with time and id it tells a row from its copies."""
MODEL_NAME = "model_name"
MODEL_VERSION = "model_version"

"""The command line's way to Kubeflow Pipelines: submitting, watching, schedules, backfills."""

"""Prefect tasks: run one named stage through DVC, stream its log, publish what a run made."""

"""Ordinary transformers models: load and save them, ids to log-probs, ids to scores."""

import rlpipe.huggingface  # noqa: F401

"""Completions with the sampler's own log-probs: one protocol, the engines behind it."""

import rlpipe.huggingface  # noqa: F401

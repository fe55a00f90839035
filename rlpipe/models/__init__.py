"""Ordinary transformers models: load and save them, ids to log-probs, ids to scores."""

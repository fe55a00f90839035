"""The typed mirror of `params.yaml`: strict, no defaults, so each number has one home."""

from rlpipe.config.load import load, parse
from rlpipe.config.schema import Params

__all__ = ["Params", "load", "parse"]

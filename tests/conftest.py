"""Shared by all tests: one thread, so that the machine's size changes no result; a tiny model of each kind."""

import signal

import pytest

# A shell starts its background jobs with SIGINT ignored, and so would be every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer():
    """A character tokenizer of the arithmetic task."""
    from rlpipe.dataio.tokenizers import characters

    return characters(["0123456789+-= "], 64)


@pytest.fixture
def tiny(tokenizer):
    """A random decoder of 2 layers; the same weights every time."""
    import torch

    from rlpipe.config.schema import Scratch
    from rlpipe.models.load import build_scratch

    torch.manual_seed(0)
    scratch = Scratch(
        tokenizer="characters",
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return build_scratch(scratch, tokenizer, 96, torch.device("cpu"))

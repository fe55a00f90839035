"""The only place where text becomes a model's tokens, and back: through the tokenizer's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[int, ...]:
    """Ids of one user turn up to where the assistant begins to speak."""
    turns = [{"role": "user", "content": prompt}]
    ids = tokenizer.apply_chat_template(turns, tokenize=True, add_generation_prompt=True, return_dict=False)
    return tuple(cast("list[int]", ids))


def response_ids(tokenizer: PreTrainedTokenizerBase, response: str) -> tuple[int, ...]:
    """Ids of what the assistant says behind `prompt_ids`, ended by the end-of-sequence token.

    Encoded by itself, because that is how it is sampled: prompt and response meet as tokens, never as text.
    So a template that rewrites finished turns (some drop the thinking) cannot part training from sampling.
    """
    assert tokenizer.eos_token_id is not None, "tokenizers.load sees to it"
    spoken = tokenizer(response, add_special_tokens=False)["input_ids"]
    return (*spoken, tokenizer.eos_token_id)


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of a response, without control tokens, no space added or removed."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def token_ends(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    """For each character count of the decoded text, ascending: the index of the token that completes it."""
    found, token = [], 0
    for end in ends:
        while token < len(ids) - 1 and len(decode(tokenizer, ids[: token + 1])) < end:
            token += 1
        found.append(token)
    return found

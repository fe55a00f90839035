"""Tokenizers: trained on the prepared data for a model built from scratch, or those of a model on hand.

Both are ordinary transformers ones, so that a checkpoint with its tokenizer loads anywhere.
"""

from __future__ import annotations

import rlpipe.huggingface  # isort: skip  # noqa: F401

import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlpipe.errors import ConfigError, ModelError

PAD, UNKNOWN, USER, ASSISTANT, END = "<|pad|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|end|>"
CONTROL = (PAD, UNKNOWN, USER, ASSISTANT, END)
# The answer's visible format. Whole tokens, but not "special": they survive decoding; verifiers read them.
TAGS = ("<think>", "</think>", "<answer>", "</answer>")

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}" + USER + "{{- message['content'] -}}"
    "{%- elif message['role'] == 'assistant' -%}" + ASSISTANT + "{{- message['content'] -}}{{- eos_token -}}"
    "{%- else -%}{{- raise_exception('This tokenizer knows user and assistant turns only.') -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}" + ASSISTANT + "{%- endif -%}"
)


def characters(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """One token a character of `texts`, sorted, beside the control tokens and the tags.

    Raises: ConfigError if they do not fit into `vocab_size`.
    """
    alphabet = sorted({character for text in texts for character in _without_tags(text)})
    needed = len(CONTROL) + len(TAGS) + len(alphabet)
    if needed > vocab_size:
        raise ConfigError(
            f"model.scratch.vocab_size={vocab_size}: the data has {len(alphabet)} distinct characters, which "
            f"with {needed - len(alphabet)} control tokens make {needed}. "
            f"Set {needed} or more, or model.scratch.tokenizer to bpe."
        )
    vocab = {token: index for index, token in enumerate((*CONTROL, *TAGS, *alphabet))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return _finished(tokenizer)


def bpe(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level pairs learnt from `texts` up to `vocab_size` tokens in all; any text can be encoded.

    Digits stand alone, so that a number is read the same wherever it stands. The same texts in the same order
    give the same bytes: ties between pairs are broken by their ids.

    Raises: ConfigError if `vocab_size` cannot hold the 256 bytes beside the control tokens and the tags.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    needed = len(CONTROL) + len(TAGS) + len(alphabet)
    if vocab_size < needed:
        raise ConfigError(
            f"model.scratch.vocab_size={vocab_size}: a byte-level tokenizer holds {len(alphabet)} bytes and "
            f"{needed - len(alphabet)} control tokens before it learns any pair. Set {needed} or more."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*CONTROL, *TAGS],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator((_without_tags(text) for text in texts), trainer)
    return _finished(tokenizer)


KINDS: Mapping[str, Callable[[Iterable[str], int], PreTrainedTokenizerFast]] = {
    "characters": characters,
    "bpe": bpe,
}


def extended(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """The tokenizer with one more token for each character of `texts` that it cannot encode, sorted, at the end.

    What it could encode it encodes as before. One that can encode anything, such as a byte-level one, gets no token.
    """
    unknown = tokenizer.unk_token_id
    alphabet = sorted({character for text in texts for character in text})
    missing = [
        character
        for character in alphabet
        if unknown is not None and unknown in tokenizer(character, add_special_tokens=False)["input_ids"]
    ]
    longer = copy.deepcopy(tokenizer)
    longer.add_tokens([AddedToken(character, special=False, normalized=False) for character in missing])
    return longer


def load(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub id or a local folder, made ready for chat.

    Its end-of-sequence token becomes the one that its chat template puts behind an assistant's turn (base
    models often name another one), so that one token ends a response in training, in sampling and in the
    checkpoint. A tokenizer without a padding token pads with that one; masks never come from comparing ids.

    Raises: ModelError if there is no such tokenizer, or it has no chat template.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{name_or_path}: no tokenizer there: {error}") from None
    if tokenizer.chat_template is None:
        raise ModelError(
            f"{name_or_path}: the tokenizer has no chat template, so a prompt has no defined form. "
            "Choose a chat or instruct model, or add chat_template.jinja to a local copy."
        )
    tokenizer.eos_token = _end_of_turn(tokenizer) or tokenizer.eos_token
    if tokenizer.eos_token is None:
        raise ModelError(
            f"{name_or_path}: the tokenizer has no token that ends an assistant's turn, so a response "
            "would never end. Set eos_token in tokenizer_config.json of a local copy."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The control token that the chat template puts directly behind an assistant's words, if it does."""
    marker = "rlpipe-end-of-turn"
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": marker}]
    rendered = str(tokenizer.apply_chat_template(turns, tokenize=False))
    behind = rendered.rpartition(marker)[2].lstrip()
    control = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return next((token for token in control if behind.startswith(token)), None)


def _without_tags(text: str) -> str:
    for token in (*CONTROL, *TAGS):
        text = text.replace(token, "")
    return text


def _finished(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in TAGS])
    finished = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        extra_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    finished.chat_template = CHAT_TEMPLATE
    return finished

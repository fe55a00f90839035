"""Tokenizers trained on the data, and those that come with a model."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlpipe.dataio.chat import decode, prompt_ids, response_ids
from rlpipe.dataio.tokenizers import KINDS, TAGS, bpe, characters, load
from rlpipe.errors import ConfigError, ModelError

TEXTS = ["7+5-2", "<think>7+5=12 12-2=10</think><answer>10</answer>", "Zoë said: “no”.\n  Then she left."]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def hub_like(folder: Path, eos: str, template: str | None = CHATML) -> Path:
    """A tokenizer such as hub chat models have: byte-level, ChatML turns, no padding token."""
    vocab = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_comes_back_exactly_after_save_and_load(kind: str, tmp_path: Path) -> None:
    KINDS[kind](TEXTS, 400).save_pretrained(tmp_path)
    tokenizer = load(tmp_path)
    for text in TEXTS:
        assert decode(tokenizer, response_ids(tokenizer, text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_tags_are_single_tokens_that_survive_decoding(kind: str) -> None:
    tokenizer = KINDS[kind](TEXTS, 400)
    *ids, end = response_ids(tokenizer, "".join(TAGS))
    assert [tokenizer.convert_ids_to_tokens(i) for i in ids] == list(TAGS)
    assert end == tokenizer.eos_token_id != tokenizer.pad_token_id
    assert tokenizer.decode([*ids, end], skip_special_tokens=True) == "".join(TAGS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_in_two_halves_is_the_turn_of_the_template(kind: str) -> None:
    tokenizer = KINDS[kind](TEXTS, 400)
    turns = [{"role": "user", "content": TEXTS[0]}, {"role": "assistant", "content": TEXTS[1]}]
    whole = tokenizer.apply_chat_template(turns, return_dict=False)
    assert tuple(whole) == prompt_ids(tokenizer, TEXTS[0]) + response_ids(tokenizer, TEXTS[1])


def test_characters_that_do_not_fit_are_counted() -> None:
    # a b c beside 5 control tokens and 4 tags: 12.
    assert len(characters(["abc"], 12)) == 12
    with pytest.raises(ConfigError, match=r"model.scratch.vocab_size=11: the data has 3 distinct .* make 12\. Set 12"):
        characters(["abc"], 11)


def test_an_unknown_character_is_one_unknown_token() -> None:
    tokenizer = characters(["abc"], 12)
    assert tokenizer("aéb", add_special_tokens=False)["input_ids"][1] == tokenizer.unk_token_id


def test_bpe_learns_up_to_the_vocabulary_and_needs_room_for_the_bytes() -> None:
    # 256 bytes, 5 control tokens and 4 tags: 265 before the first pair.
    assert len(bpe(["abab abab"] * 9, 266)) == 266
    with pytest.raises(ConfigError, match="Set 265 or more"):
        bpe(["abab"], 264)


def test_bpe_reads_digits_one_by_one() -> None:
    tokenizer = bpe(["1234 1234 1234"] * 9, 400)
    assert tokenizer.tokenize("1234") == ["1", "2", "3", "4"]


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    # Many words of one frequency, so that ties between pairs abound; another hash seed and thread count.
    words = ["".join(random.Random(n).choices("abcdefgh", k=5)) for n in range(400)]
    bpe([" ".join(words)], 500).save_pretrained(tmp_path / "here")
    program = (
        "import sys; from rlpipe.dataio.tokenizers import bpe; bpe([sys.argv[1]], 500).save_pretrained(sys.argv[2])"
    )
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "1"}
    arguments = [sys.executable, "-c", program, " ".join(words), str(tmp_path / "there")]
    subprocess.run(arguments, env=environment, check=True)
    here, there = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("here", "there"))
    assert here == there
    assert "tokenizer.json" in here


def test_a_hub_chat_model_ends_its_turn_with_its_own_token(tmp_path: Path) -> None:
    tokenizer = load(hub_like(tmp_path, eos="<|im_end|>"))
    assert tokenizer.convert_ids_to_tokens(response_ids(tokenizer, "Hi")) == ["H", "i", "<|im_end|>"]
    assert tokenizer.decode(prompt_ids(tokenizer, "Q")) == "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    assert decode(tokenizer, response_ids(tokenizer, "<think>2</think>")) == "<think>2</think>"
    assert tokenizer.pad_token_id is not None


def test_the_templates_end_of_turn_wins_over_a_base_models_eos(tmp_path: Path) -> None:
    tokenizer = load(hub_like(tmp_path, eos="<|endoftext|>"))
    assert tokenizer.eos_token == "<|im_end|>"


def test_a_tokenizer_without_chat_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no chat template"):
        load(hub_like(tmp_path, eos="<|im_end|>", template=None))


def test_no_tokenizer_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no tokenizer there"):
        load(tmp_path / "absent")

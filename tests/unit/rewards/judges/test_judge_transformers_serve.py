"""The `openai` judge against `transformers serve`: a server that is not ours, with a small judge trained on the spot.

That server takes `response_format` and ignores it (transformers 5.19), so nothing but the strict reading holds here.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from asking import endpoint, judging

from rlpipe.dataio.chat import prompt_ids, response_ids
from rlpipe.dataio.tokenizers import characters
from rlpipe.rewards.judges.base import Pair
from rlpipe.rewards.judges.build import endpoint_judge, model_judge
from rlpipe.rewards.judges.endpoint import EndpointRespondent
from rlpipe.rewards.judges.statistics import accuracy
from rlpipe.rewards.judges.templates import Template

pytest.importorskip("openai", reason="the openai judge needs `pip install openai`")

CHOICE = Template(system="", user="{prompt}: {first}|{second}?", replies={"A": 1.0, "B": 0.0})
SCORE = Template(system="", user="{prompt}: {response}?", replies={"A": 1.0, "B": 0.0})


class Serve:
    """`transformers serve FOLDER` on a free port; its access log is on file."""

    def __init__(self, model: Path, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.model, self.log = model, log
        command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model), "--host", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), "--device", "cpu"],
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )

    def wait(self) -> None:
        for _ in range(600):
            assert self.process.poll() is None, self.log.read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1).read()
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
            else:
                return
        raise AssertionError(self.log.read_text())

    def calls(self) -> int:
        return self.log.read_text().count("POST /v1/chat/completions HTTP/1.1")


def right_and_wrong(n: int) -> list[tuple[Pair, bool]]:
    """Pairs, and whether the first response is the right one."""
    draw = random.Random(0)
    first = [draw.random() < 0.5 for _ in range(n)]
    texts = {True: "right", False: "wrong"}
    return [(Pair(f"{at:03}", texts[is_right], texts[not is_right]), is_right) for at, is_right in enumerate(first)]


def train_judge(folder: Path) -> None:
    """A decoder that answers A where the first of two words is `right`, and B where the second is."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = characters(["abcdefghijklmnopqrstuvwxyz0123456789: |?AB"], 64)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(
        LlamaConfig(
            **size, vocab_size=64, max_position_embeddings=4096, bos_token_id=None, eos_token_id=tokenizer.eos_token_id
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(50):
        rows = right_and_wrong(1000)[20 * step : 20 * step + 20]
        prompts = [prompt_ids(tokenizer, f"{pair.prompt}: {pair.first}|{pair.second}?") for pair, _ in rows]
        replies = [response_ids(tokenizer, "A" if is_right else "B") for _, is_right in rows]
        ids = torch.tensor([[*prompt, *reply] for prompt, reply in zip(prompts, replies, strict=True)])
        labels = ids.clone()
        labels[:, : len(prompts[0])] = -100
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    folder = tmp_path_factory.mktemp("served")
    train_judge(folder / "judge")
    serve = Serve(folder / "judge", folder / "log")
    try:
        serve.wait()
        yield serve
    finally:
        serve.process.kill()
        serve.process.wait()


@pytest.mark.slow
def test_two_hundred_pairs_by_a_trained_judge_then_none(serve: Serve, tmp_path: Path) -> None:
    settings = endpoint(f"http://127.0.0.1:{serve.port}/v1", model=str(serve.model), structure="none")
    rows = right_and_wrong(200)

    def verdicts():
        respondent = EndpointRespondent(settings, seed=17)
        with model_judge(respondent, judging(tmp_path), score=SCORE, choice=CHOICE) as judge:
            return judge.choices([pair for pair, _ in rows])

    found = verdicts()
    assert serve.calls() == 400
    figures = accuracy(found, ["first" if is_right else "second" for _, is_right in rows])
    assert figures is not None
    assert figures.pairs == 200
    assert figures.accuracy > 0.95  # it was trained to tell them apart
    assert verdicts() == found
    assert serve.calls() == 400


@pytest.mark.slow
def test_a_server_that_ignores_the_list_of_replies_is_not_believed(serve: Serve, tmp_path: Path) -> None:
    # It accepts the field, ignores it and answers in its own words: A, where {"score": N} was asked for.
    # Its chat template knows no system, so the instructions go before the question.
    url = f"http://127.0.0.1:{serve.port}/v1"
    settings = endpoint(url, model=str(serve.model), structure="json_schema", system_role=False)
    with endpoint_judge(settings, judging(tmp_path)) as judge:
        verdict = judge.score("000", "right")
    assert verdict.score is None
    assert verdict.missing.startswith("malformed: ")

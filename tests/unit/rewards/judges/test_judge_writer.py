"""Free text from a judge's model: a real server, and a real model in process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import endpoint, judging
from judge_process import Server

from rlpipe.dataio.chat import decode, prompt_ids
from rlpipe.rewards.judges.base import JudgeError, ReplayError
from rlpipe.rewards.judges.build import fence_of
from rlpipe.rewards.judges.endpoint import EndpointRespondent
from rlpipe.rewards.judges.journal import Journal, read_judgments
from rlpipe.rewards.judges.templates import OpenTemplate
from rlpipe.rewards.judges.writer import LocalWriter, Writer
from rlpipe.rollout.engine import TransformersEngine
from rlpipe.types import Completion, Request, Sampling

CRITIQUE = OpenTemplate("Criticise.", "[{nonce}] {prompt} = {response} [{nonce}]", ("prompt", "response"))
BARE = OpenTemplate("", "{prompt}={response}", ("prompt", "response"))
BOTH = [(CRITIQUE, ("1+1", "2")), (CRITIQUE, ("1+2", "4"))]


def write(folder: Path, respondent: Any, asked: Sequence[Any], *, replay: bool = False) -> tuple[list[Any], Writer]:
    settings = judging(folder)
    with Journal(settings.journal) as journal:
        writer = Writer(respondent, journal, fence_of(settings, ()), replay=replay)
        return writer.write(asked), writer


def local(tiny: Any, tokenizer: Any, *, temperature: float = 0.0, max_prompt: int = 60, tokens: int = 8) -> LocalWriter:
    engine = TransformersEngine(tiny, frozenset({tokenizer.eos_token_id}), torch.device("cpu"), 4)

    def generate(requests: Sequence[Request]) -> Sequence[Completion]:
        return engine.generate(requests, Sampling(temperature, tokens))

    return LocalWriter(
        generate,
        "tiny",
        encode_prompt=partial(prompt_ids, tokenizer),
        decode=partial(decode, tokenizer),
        sampling={"temperature": temperature},
        max_prompt=max_prompt,
        seed=17,
    )


def test_a_server_writes_fenced_and_a_rerun_makes_no_call(server: Server, tmp_path: Path) -> None:
    server.plant(*[{"kind": "message", "message": {"content": "It is wrong: {4}. "}}] * 2)
    respondent = EndpointRespondent(endpoint(server.url, structure="choice"), 17)
    first, writer = write(tmp_path, respondent, BOTH)
    assert [one.text for one in first] == ["It is wrong: {4}."] * 2
    requests = server.requests()
    assert all("structured_outputs" not in request and "response_format" not in request for request in requests)
    nonce = requests[0]["messages"][1]["content"][1:33]
    assert len(nonce) == 32
    assert requests[0]["messages"][1]["content"].endswith(f"[{nonce}]")
    again, rerun = write(tmp_path, respondent, BOTH, replay=True)
    assert again == first
    assert len(server.requests()) == 2
    assert (writer.tally.outcomes, rerun.tally.from_file) == ({"judged": 2}, 2)
    assert rerun.used == writer.used


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"message": {"content": " \n"}}, "malformed: the reply is empty"),
        ({"message": {"content": "It is"}, "finish_reason": "length"}, "malformed: cut off after"),
        ({"message": {"content": "", "refusal": "I will not."}}, "refused: I will not."),
    ],
)
def test_what_is_no_text_is_missing_with_its_reason_also_from_file(
    server: Server, tmp_path: Path, fault: dict[str, Any], said: str
) -> None:
    server.plant({"kind": "message", **fault})
    respondent = EndpointRespondent(endpoint(server.url), 17)
    for _ in range(2):
        [one], _ = write(tmp_path, respondent, BOTH[:1])
        assert one.text is None
        assert one.missing.startswith(said)
    assert len(server.requests()) == 1


def test_replay_forbids_a_call(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ReplayError):
        write(tmp_path, EndpointRespondent(endpoint(server.url), 17), BOTH, replay=True)
    assert server.requests() == []


def test_a_model_in_process_writes_what_its_engine_draws(tiny: Any, tokenizer: Any, tmp_path: Path) -> None:
    writer = local(tiny, tokenizer)
    asked = [(BARE, ("3+4", "7")), (BARE, ("1", "2222")), (BARE, ("3+4", "7"))]
    written, own = write(tmp_path, writer, asked)
    assert sum(own.tally.attempts.values()) == 2  # the same thing once
    assert written[0] == written[2]
    # Random weights hardly ever end a turn: what reached the limit of 8 tokens passes for no text.
    filed = read_judgments(tmp_path / "journal.jsonl").values()
    assert all(one.outcome == ("cut_off" if one.completion_tokens == 8 else "replied") for one in filed)
    assert any(one.outcome == "cut_off" for one in filed)
    assert all((one.text is None) == bool(one.missing) for one in written)
    again, _ = write(tmp_path / "again", local(tiny, tokenizer), asked[::-1])
    assert again[::-1] == written


def test_at_a_temperature_each_question_has_a_stream_of_its_own(tiny: Any, tokenizer: Any, tmp_path: Path) -> None:
    def replies(folder: str, asked: list[Any]) -> dict[str, str]:
        write(tmp_path / folder, local(tiny, tokenizer, temperature=1.0), asked)
        return {key: one.reply for key, one in read_judgments(tmp_path / folder / "journal.jsonl").items()}

    one, other = (BARE, ("3+4", "7")), (BARE, ("3-4", "7"))
    both = replies("both", [one, other])
    assert replies("one", [one]).items() <= both.items()
    assert len(set(both.values())) == 2


def test_a_question_without_room_is_missing_never_cut(tiny: Any, tokenizer: Any, tmp_path: Path) -> None:
    [short, long], _ = write(
        tmp_path, local(tiny, tokenizer, max_prompt=20), [(BARE, ("3", "7")), (BARE, ("3", "7" * 30))]
    )
    assert long.missing.startswith("too_long: the question takes 34 tokens")
    assert not short.missing.startswith("too_long")


def test_a_template_that_hides_a_text_is_refused() -> None:
    with pytest.raises(JudgeError, match=r"lacks \{response\}"):
        OpenTemplate("", "{prompt}", ("prompt", "response"))

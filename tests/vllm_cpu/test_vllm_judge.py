"""The local judge by vLLM: the same verdicts as by transformers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from small_decoders import decoder, settings

from rlpipe.dataio.chat import prompt_ids, response_ids
from rlpipe.rewards.judges.build import model_judge
from rlpipe.rewards.judges.local import LocalRespondent, live
from rlpipe.rewards.judges.settings import Judging
from rlpipe.rewards.judges.templates import Template
from rlpipe.rollout.vllm_engine import VLLMEngine
from rlpipe.types import Sampling

SCORE = Template(system="", user="{prompt}={response}", replies={"1": 0.0, "2": 0.5, "10": 1.0})
CHOICE = Template(system="", user="{prompt}={first} {second}", replies={"1": 1.0, "2": 0.0})
ASKED = [(f"{a}+{b}", str(a + b)) for a in range(5) for b in range(5)]


def _verdicts(tokenizer, folder, logps, engine=None):
    respondent = LocalRespondent(
        logps,
        "small",
        encode_prompt=partial(prompt_ids, tokenizer),
        encode_reply=partial(response_ids, tokenizer),
        max_length=40,
        engine=engine,
    )
    how = Judging(
        seed=17,
        fence_key="k",
        journal=folder / "journal.jsonl",
        known=(),
        replay=False,
        reasoned=False,
        top=10,
        tie_margin=0.0,
    )
    with model_judge(respondent, how, score=SCORE, choice=CHOICE, expected=True) as judge:
        scores = judge.scores([*ASKED, ("1+" * 30, "30")])
        return scores, dict(judge.used)


def test_verdicts_and_scores_are_those_by_transformers(tokenizer, tmp_path):
    model = decoder()
    engine = VLLMEngine(
        model, frozenset({1}), torch.device("cpu"), "float32", 16, settings(), Sampling(0.0, 1), tmp_path / "w"
    )
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    plain, plain_filed = _verdicts(tokenizer, tmp_path / "a", live(model))
    vllm, vllm_filed = _verdicts(tokenizer, tmp_path / "b", engine.reply_logps, "vllm")
    assert plain[-1].score is vllm[-1].score is None  # no room for that question
    for one, other in zip(plain[:-1], vllm[:-1], strict=True):
        assert other.score == pytest.approx(one.score, abs=1e-3)
    replies = [[judgment.reply for judgment in filed.values()] for filed in (plain_filed, vllm_filed)]
    assert replies[0] == replies[1]
    assert len(set(replies[0])) > 1
    assert not plain_filed.keys() & vllm_filed.keys()  # who computed it is part of a judgment's key

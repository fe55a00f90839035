"""The `local` judge: a causal language model in this process chooses by comparing whole replies' log-probs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlpipe.rewards.judges.model_judge import Answer, Call, OnCall, Question
from rlpipe.rewards.judges.templates import Template, one_turn

Encode = Callable[[str], Sequence[int]]


# (a prompt's ids, its replies' ids) of each question to the log-prob of each reply, in their order; lazily or at once.
Replies = tuple[Sequence[int], Sequence[Sequence[int]]]
ReplyLogps = Callable[[Sequence[Replies]], Iterable[Sequence[float]]]


class LocalRespondent:
    """Answers with the likeliest of the template's replies: no sampling, so the same answer every time.

    Args:
        logps: the model, by its engine; see `live`.
        name: what identifies its weights, such as the hash of the folder they were loaded from.
        encode_prompt: text of one user turn to ids, up to where the assistant begins to speak.
        encode_reply: text of what the assistant says to ids, the end of its turn included; so a reply that begins
            like a longer one (1 and 10) is a reply of its own.
        max_length: tokens of prompt and reply that the model can take.
        engine: what runs the model, where its arithmetic is not `live`'s: part of the content key then.
    """

    def __init__(
        self,
        logps: ReplyLogps,
        name: str,
        *,
        encode_prompt: Encode,
        encode_reply: Encode,
        max_length: int,
        engine: str | None = None,
    ) -> None:
        self._logps, self.name = logps, name
        self._encode_prompt, self._encode_reply = encode_prompt, encode_reply
        self._max_length = max_length
        self.parameters: Mapping[str, Any] = {"kind": "local", "max_length": max_length}
        if engine is not None:
            self.parameters = {**self.parameters, "engine": engine}

    def ask(self, questions: Sequence[Question], file: Callable[[Question, Answer], None], on_call: OnCall) -> None:
        """See `Respondent`. A question that the model has no room for gets no answer: cut, it would be another."""
        encoded = [self._encoded(question) for question in questions]
        scores = iter(self._logps([replies for replies in encoded if self._fits(replies)]))
        for question, replies in zip(questions, encoded, strict=True):
            start = time.monotonic()
            answer = _likeliest(question, replies, next(scores)) if self._fits(replies) else self._no_room(replies)
            on_call(Call(question, self.name, answer, time.monotonic() - start, attempt=1))
            file(question, answer)

    def _encoded(self, question: Question) -> Replies:
        assert isinstance(question.template, Template), "a text is written by a `LocalWriter`"
        prompt = tuple(self._encode_prompt(one_turn(question.messages)))
        return prompt, [tuple(self._encode_reply(reply)) for reply in question.template.replies]

    def _fits(self, replies: Replies) -> bool:
        return _longest(replies) <= self._max_length

    def _no_room(self, replies: Replies) -> Answer:
        room = f"the question takes {_longest(replies)} tokens, and the judge has room for {self._max_length}"
        return Answer("too_long", detail=room)


def live(model: nn.Module) -> ReplyLogps:
    """A causal decoder in this process, called as transformers' are (`input_ids`, `attention_mask` to `.logits`).

    Each question is one forward pass of its own, its replies the rows: what else is asked, and what is on file
    already, cannot change its bits.
    """

    def logps(asked: Sequence[Replies]) -> Iterator[list[float]]:
        for prompt, replies in asked:
            was_training = model.training
            model.eval()
            scores = reply_logps(model, prompt, replies).tolist()
            model.train(was_training)
            yield scores

    return logps


def _longest(replies: Replies) -> int:
    prompt, ids = replies
    return len(prompt) + max(map(len, ids))


def _likeliest(question: Question, replies: Replies, scores: Sequence[float]) -> Answer:
    assert isinstance(question.template, Template), "it was encoded"
    prompt, ids = replies
    length = dict(zip(question.template.replies, map(len, ids), strict=True))
    # Six digits: what is on file must not depend on a matrix kernel's last bit.
    logps = {reply: round(score, 6) for reply, score in zip(length, scores, strict=True)}
    best = max(logps, key=lambda reply: logps[reply])  # of equals the first in the template
    return Answer("replied", best, len(prompt), length[best], logps)


@torch.no_grad()
def reply_logps(model: nn.Module, prompt: Sequence[int], replies: Sequence[Sequence[int]]) -> Tensor:
    """[C] nats, float32: log-prob of each reply's tokens, summed, behind the prompt.

    Args:
        prompt: ids, at least one.
        replies: C replies' ids, at least one each.
    """
    device = next(model.parameters()).device
    width, start = max(map(len, replies)), len(prompt)
    # Padded behind: under a causal mask no real token sees the padding, so it may hold any id.
    rows = [[*prompt, *reply, *[0] * (width - len(reply))] for reply in replies]
    ids_CL = torch.tensor(rows, device=device)
    length_C = torch.tensor([len(reply) for reply in replies], device=device)
    mask_CT = torch.arange(width, device=device) < length_C.unsqueeze(1)
    attention_CL = torch.cat([mask_CT.new_ones(len(replies), start), mask_CT], 1)
    logits_CLV = model(input_ids=ids_CL, attention_mask=attention_CL.long()).logits
    logp_CTV = torch.log_softmax(logits_CLV[:, start - 1 : -1].float(), -1)
    logp_CT = logp_CTV.gather(2, ids_CL[:, start:].unsqueeze(2)).squeeze(2)
    return torch.where(mask_CT, logp_CT, 0.0).sum(1)

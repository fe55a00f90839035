"""Exactly once, in order, nothing else."""

from __future__ import annotations

import pytest

from rlpipe.rewards.format import Parts, parts, tag_format
from rlpipe.types import Task


@pytest.mark.parametrize(
    "completion",
    [
        "<think>a</think><answer>5</answer>",
        " <think>\na b\n</think>\n\n<answer> 5 </answer>\n",
        "<think><</think><answer>></answer>",
    ],
)
def test_in_the_format(completion: str) -> None:
    assert tag_format([Task("t", "q", "5")], [completion]) == [1.0]


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "5",
        "<think>a</think>",
        "<answer>5</answer>",
        "<answer>5</answer><think>a</think>",
        "<think>a<answer>5</answer></think>",
        "<think>a</think><answer>5",
        "x<think>a</think><answer>5</answer>",
        "<think>a</think>x<answer>5</answer>",
        "<think>a</think><answer>5</answer>x",
        "<think>a</think><answer>5</answer><answer>6</answer>",
        "<think>a</think><think>b</think><answer>5</answer>",
        "<think><think>a</think><answer>5</answer>",
        "</think><think>a<answer>5</answer>",
        "<think> </think><answer>5</answer>",
        "<think>a</think><answer></answer>",
        "<THINK>a</THINK><answer>5</answer>",
    ],
)
def test_out_of_the_format(completion: str) -> None:
    assert tag_format([Task("t", "q", "5")], [completion]) == [0.0]


def test_parts_come_without_the_space_around_them() -> None:
    assert parts("<think> a\nb </think> <answer> 5\n</answer>") == Parts("a\nb", "5")

"""Where a step's time goes, and the suite for a GPU, on shapes that take a second."""

import pytest

from benchmarks import gpu, texts
from benchmarks.phases import PHASES, Spans
from benchmarks.profile import draw, measured
from benchmarks.shapes import Groups


def test_phases_are_a_partition_of_the_step():
    """10 s from 100: rollout 101-104, reward 104-105, forward from 107, backward 108-109, optimizer 109-109.5."""
    spans = Spans()
    spans.spans = [
        ("rollout", 90.0, 95.0), ("rollout", 101.0, 104.0), ("reward", 104.0, 105.0),
        ("backward", 108.0, 109.0), ("optimizer", 109.0, 109.5),
    ]  # fmt: skip
    spans.forwards = [91.0, 107.0, 107.5]
    assert spans.within(110.0, 10.0) == {
        "rollout": 3.0, "reward": 1.0, "reference": 3.0, "forward": 1.5, "backward": 1.0, "optimizer": 0.5,
    }  # fmt: skip


def test_both_sides_steps_are_seen_whole(groups, tmp_path):
    profiles = measured(groups(), 8)
    for profile in profiles.values():
        assert list(profile) == list(PHASES)
        assert all(seconds > 0 for seconds in profile.values())
    draw(profiles, tmp_path / "profile.png")
    assert (tmp_path / "profile.png").stat().st_size > 5_000


def test_the_gpu_suite_on_a_tiny_shape(folder):
    def never():
        raise AssertionError("the model is there")

    scale = gpu.Scale(never, 2, 6, 2, 8, 8, 20, (16, 32), 2)
    lines = gpu.figures(folder, scale, peak=1.0)
    assert [line.partition(":")[0] for line in lines] == ["GRPO", "SFT, 16 tokens", "SFT, 32 tokens"]
    assert all("tokens/s" in line and "MFU" in line for line in lines)


def test_training_flop_is_six_a_parameter_and_token_and_causal_attention(groups):
    """2 layers of 2 heads of 16: 6 * 10 tokens * (1000 parameters + 64 * rows of 5)."""
    from transformers import Qwen2Config

    config = Qwen2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    assert gpu.training_flop(config, 1000, 10, 5) == 6 * 10 * (1000 + 2 * 32 * 5)


def test_the_work_is_counted(groups):
    work: Groups = groups()
    assert work.completions == 8


def test_without_real_data_the_projects_own_pages_serve(monkeypatch, tmp_path):
    monkeypatch.setattr(texts, "GSM8K", tmp_path / "none")
    monkeypatch.setattr(texts, "PREFERENCES", tmp_path / "none")
    for source, rows in (texts.questions(), texts.preferences()):
        assert source == "this project's pages"
        assert len(rows) >= 32
        assert all(len(set(row)) == len(row) for row in rows)


@pytest.mark.parametrize("vocabulary", [128])
def test_text_of_numbers_is_read_back_as_the_very_tokens(vocabulary):
    from benchmarks.shapes import numbers

    tokenizer = numbers(vocabulary, 127)
    ids = [5, 17, 0, 126, 127]
    assert tokenizer(tokenizer.decode(ids))["input_ids"] == ids

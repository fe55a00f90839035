"""The least that a step of GRPO costs, counted by hand."""

import math
import time

import torch

from benchmarks.limits import Speed, Weights, bounds, kernels, weights_of

WEIGHTS = Weights(layers=10, last=3, head=4)


def test_operations_at_one_a_second():
    # One prompt of 3 tokens, completions of 2 and 1. Prefill: two tokens without the last layer's 3, and one logit:
    # 2 (10 * 3 - 3 * 2 + 4 * 1) = 56. The second token of the longer one: 2 (10 + 4) = 28. Six tokens once through the
    # layers, three of them through the head, the others without the last 3: 2 (10 * 6 - 3 * 3 + 4 * 3) = 126.
    found = bounds(WEIGHTS, [3], [2, 1], Speed(operations=1.0, bytes=math.inf), number=4, learn=True)
    assert found == {"rollout": 84.0, "reference": 126.0, "forward": 126.0, "backward": 252.0}


def test_beside_an_adapter_the_way_back_is_one_pass():
    found = bounds(WEIGHTS, [3], [2, 1], Speed(operations=1.0, bytes=math.inf), number=4, learn=False)
    assert found["backward"] == found["forward"] == 126.0


def test_a_decoding_step_reads_all_weights():
    # Two steps behind the first token of 3, of 4 bytes for each of 14 weights.
    found = bounds(WEIGHTS, [3], [3], Speed(operations=math.inf, bytes=1.0), number=4, learn=True)
    assert found == {"rollout": 2 * 4 * 14.0, "reference": 0.0, "forward": 0.0, "backward": 0.0}


def test_tied_heads_count_once_and_embeddings_not(tiny):
    found = weights_of(tiny)
    assert found.head == tiny.lm_head.weight.numel()
    maps = {name: p.numel() for name, p in tiny.named_parameters() if name.endswith("_proj.weight")}
    assert found.layers == sum(maps.values())
    ends = ("k_proj.weight", "v_proj.weight")
    last = f"layers.{tiny.config.num_hidden_layers - 1}."
    assert found.last == sum(count for name, count in maps.items() if last in name and not name.endswith(ends))


def test_products_and_attention_of_the_last_step_are_counted():
    large, small = torch.randn(512, 512), torch.randn(2, 2)

    def steps(seconds: float) -> float:
        """Much, and half a second later little; `seconds` say how much of it is the last step."""
        for _ in range(50):
            large @ large
        time.sleep(0.5)
        small @ small
        return seconds

    assert 0 < kernels(lambda: steps(0.1)) < kernels(lambda: steps(60.0)) / 2
    assert kernels(lambda: float(large.exp().sum() > 0)) == 0

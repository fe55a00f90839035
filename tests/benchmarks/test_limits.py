"""The least that a step of GRPO costs, counted by hand."""

import math

from benchmarks.limits import Speed, Weights, bounds, weights_of

WEIGHTS = Weights(body=10, head=4)


def test_operations_at_one_a_second():
    # One prompt of 3 tokens, completions of 2 and 1. Prefill: 2 (10 * 3 + 4 * 1) = 68. The second token of the longer
    # one: 2 (10 + 4) = 28. Six tokens once through the layers, three through the head: 2 (10 * 6 + 4 * 3) = 144.
    found = bounds(WEIGHTS, [3], [2, 1], Speed(operations=1.0, bytes=math.inf))
    assert found == {"rollout": 96.0, "reference": 144.0, "forward": 144.0, "backward": 288.0}


def test_a_decoding_step_reads_all_weights():
    # Two steps behind the first token of 3, of 4 bytes for each of 14 weights.
    found = bounds(WEIGHTS, [3], [3], Speed(operations=math.inf, bytes=1.0))
    assert found == {"rollout": 2 * 4 * 14.0, "reference": 0.0, "forward": 0.0, "backward": 0.0}


def test_tied_heads_count_once_and_embeddings_not(tiny):
    found = weights_of(tiny)
    assert found.head == tiny.lm_head.weight.numel()
    linear = sum(p.numel() for name, p in tiny.named_parameters() if name.endswith("_proj.weight"))
    assert found.body == linear

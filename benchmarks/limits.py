"""How near steps come to what this machine could do: seconds over a lower bound.

    python -m benchmarks.limits [grpo] [ppo] [dpo] [reward_model] [sft] [head] [lora]

The bound counts the products with the model's weights alone, at the speed of the machine's own square product of their
type: no attention, no norms, no softmax, no optimizer. Every different prompt is read once, and of a prompt the last
layer's keys and values are all that is made. A decoding step has also to read all weights once, at the speed at which a
product with a single column reads them. What the peer took (results.json) over the bound is about the most that any
program could gain over it here: about, because the peer was timed at another hour, and for `lora` on a shorter step.

For steps of online RL there is a nearer one: what products and attention took as they ran, in PyTorch's own kernels. A
step in which all else took no time at all would take that.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks import dpo, grpo, head, lora, ours, ppo, reward_model, sft, shapes
from benchmarks.offline import Side
from benchmarks.pairs import RESULTS, clock
from benchmarks.phases import watched
from rlpipe.models.load import load_policy

SQUARE, REPEATS = 2048, 5
_FLOAT, _HALF = 4, 2
# What PyTorch calls its products and its attention.
KERNELS = {
    "aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "mkldnn::_linear_pointwise",
    "aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
}  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True)
class Weights:
    """Numbers in a model's linear maps.

    Attributes:
        layers: in all layers.
        last: of these, in the last layer's maps that only the tokens need whose states are read.
        head: from hidden states to logits.
    """

    layers: int
    last: int
    head: int

    def products(self, tokens: int, read: int) -> int:
        """Operations of one forward pass over so many tokens, `read` of them with logits."""
        return 2 * (self.layers * tokens - self.last * (tokens - read) + self.head * read)


@dataclass(frozen=True)
class Speed:
    """What a machine does in a second: operations of float32 products, bytes of weights read."""

    operations: float
    bytes: float


def weights_of(model: Any) -> Weights:
    """Of a causal language model in the shape of Llama."""
    layers = model.base_model.layers
    own = layers[-1]
    last = [own.self_attn.q_proj, own.self_attn.o_proj, *own.mlp.children()]
    return Weights(_numbers(layers.modules()), _numbers(last), model.get_output_embeddings().weight.numel())


def bounds(
    weights: Weights, prompts: Sequence[int], completions: Sequence[int], speed: Speed, *, number: int, learn: bool
) -> dict[str, float]:
    """Seconds by phase that a step of online RL cannot go below.

    Args:
        prompts: tokens of each prompt, read once for all its completions.
        completions: tokens of each.
        number: bytes of a weight in a product.
        learn: whether these weights do; where an adapter does, the way back has half as many products with them.
    """
    drawn, each = sum(completions), weights.layers + weights.head
    prefill = weights.products(sum(prompts), len(prompts)) / speed.operations
    in_flight = [sum(length > t for length in completions) for t in range(1, max(completions))]
    decoding = sum(
        max(weights.products(rows, rows) / speed.operations, number * each / speed.bytes) for rows in in_flight
    )
    once = weights.products(sum(prompts) + drawn, drawn) / speed.operations
    return {"rollout": prefill + decoding, "reference": once, "forward": once, "backward": (1 + learn) * once}


def speed(dtype: torch.dtype = torch.float32) -> Speed:
    """Of this machine just now, with torch's threads: medians. Products are of that type."""
    left, right = torch.randn(2, SQUARE, SQUARE).to(dtype).unbind()
    square = statistics.median(clock(lambda: left @ right) for _ in range(REPEATS))
    # 64 MB: no cache of one core holds them.
    matrices, column = torch.randn(4, SQUARE, SQUARE).unbind(), torch.randn(SQUARE, 1)
    read = statistics.median(clock(lambda: [matrix @ column for matrix in matrices]) for _ in range(REPEATS))
    return Speed(2 * SQUARE**3 / square, len(matrices) * SQUARE**2 * _FLOAT / read)


def alongside(step: Callable[[], T], times: int, dtype: torch.dtype = torch.float32) -> tuple[list[T], Speed]:
    """What so many steps gave, and the machine's speed meanwhile: the median of what it is before and after each. A
    shared machine is twice as fast at one minute as at another.
    """
    results, speeds = list[T](), [speed(dtype)]
    for _ in range(times):
        results.append(step())
        speeds.append(speed(dtype))
    return results, Speed(
        statistics.median(at.operations for at in speeds), statistics.median(at.bytes for at in speeds)
    )


def kernels(run: Callable[[], float]) -> float:
    """Seconds inside of products and attention of the last step of `run`, which returns how long that took."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        seconds = run()
    events = seen.events() or []
    since = max(event.time_range.end for event in events) - seconds * 1e6
    inside = (event for event in events if event.name in KERNELS and event.time_range.start >= since)
    return sum(event.self_cpu_time_total for event in inside) / 1e6


def main() -> None:
    works: Mapping[str, Callable[[Path], None]] = {
        "grpo": _grpo, "ppo": _ppo, "dpo": _dpo, "reward_model": _reward_model, "sft": _sft, "head": _head,
        "lora": _lora,
    }  # fmt: skip
    given = shapes.arguments("Steps against the machine's limit.", pairs=1, which=list(works))
    for which in given.which:
        with tempfile.TemporaryDirectory() as folder:
            works[which](Path(folder))


def _grpo(folder: Path) -> None:
    _by_phase(grpo.NAMES["group"], grpo.shapes_of("group", folder))


def _lora(folder: Path) -> None:
    _by_phase(lora.NAME, lora.shapes(folder))


def _by_phase(name: str, work: shapes.Groups) -> None:
    """A step of GRPO, phase by phase."""
    with watched() as spans:
        took, weights, bound_of = _online("grpo", work)
    least, seconds = bound_of(weights), spans.within(took.ended, took.seconds)
    for phase, bound in least.items():
        print(f"  {phase}: {seconds[phase]:.3g} s, at least {bound:.3g} s: {bound / seconds[phase]:.0%} of the limit")
    _compared(name, took.seconds, sum(least.values()))


def _ppo(folder: Path) -> None:
    """The same, and a critic of the policy's size that reads the samples once, for values and to learn."""
    took, weights, bound_of = _online("ppo", grpo.shapes_of("group", folder))
    critic = bound_of(replace(weights, head=0))
    _compared(ppo.NAME, took.seconds, sum(bound_of(weights).values()) + critic["forward"] + critic["backward"])


def _online(algorithm: str, work: shapes.Groups) -> tuple[ours.Took, Weights, Callable[[Weights], dict[str, float]]]:
    """The third step, its policy's weights, and what any weights' bound is, by phase."""
    half = work.dtype == "bfloat16"

    def third() -> ours.Took:
        return ours.online(algorithm, work, steps=3, lr=ours.STILL)

    (took,), machine = alongside(third, 1, torch.bfloat16 if half else torch.float32)
    inside = kernels(lambda: third().seconds)
    print(f"  products and attention as they ran: {inside:.3g} s, {inside / took.seconds:.0%} of the step")
    prompts = [len(prompt) for prompt in work.prompts]
    completions = [len(completion) for _, completion in took.drawn[-1]]
    number, learn = _HALF if half else _FLOAT, work.rank is None
    return (
        took,
        _weights(work.folder),
        lambda weights: bounds(weights, prompts, completions, machine, number=number, learn=learn),
    )


def _dpo(folder: Path) -> None:
    """Three passes of the policy (the way back is two), one of the reference."""
    model, (_, pairs) = shapes.stored(shapes.model_16m, folder), shapes.pairs(dpo.PAIRS)
    _offline([dpo.NAME], partial(ours.dpo, model, pairs), 4 * _weights(model).products(*_tokens(pairs)))


def _reward_model(folder: Path) -> None:
    """Three passes, of which each response's last state is read."""
    model, (_, pairs) = shapes.stored(shapes.model_16m, folder), shapes.pairs(reward_model.PAIRS)
    operations = 3 * replace(_weights(model), head=0).products(_tokens(pairs)[0], 2 * len(pairs))
    _offline([reward_model.NAME], partial(ours.reward_model, model, pairs), operations)


def _sft(folder: Path) -> None:
    """Three passes."""
    model, (_, rows) = shapes.stored(shapes.model_16m, folder), shapes.demonstrations(sft.ROWS)
    read = sum(len(response) for _, response in rows)
    operations = 3 * _weights(model).products(read + sum(len(prompt) for prompt, _ in rows), read)
    _offline([name for name, *_ in sft.PEERS.values()], partial(ours.sft, model, rows), operations)


def _offline(names: Iterable[str], side: Side, operations: int) -> None:
    """A step on fixed rows, once for each peer's name."""
    _fixed(names, lambda: side(steps=2, lr=ours.STILL).seconds, operations)


def _head(_: Path) -> None:
    """Logits, and two products on the way back."""
    inputs = head.Inputs()
    _fixed([head.NAME], lambda: clock(lambda: head.ours(inputs)), 3 * 2 * head.REAL * head.HIDDEN * head.VOCABULARY)


def _fixed(names: Iterable[str], seconds: Callable[[], float], operations: int) -> None:
    seconds()
    took, machine = alongside(seconds, REPEATS)
    for name in names:
        _compared(name, statistics.median(took), operations / machine.operations)


def _compared(name: str, took: float, bound: float) -> None:
    peers = {result["name"]: result["peer"] for result in json.loads(RESULTS.read_text())}
    most = f", {peers[name] / bound:.1f} times the peer's speed of another hour at most" if name in peers else ""
    print(f"{name}: {took:.3g} s, at least {bound:.3g} s: {bound / took:.0%} of the limit{most}")


def _tokens(pairs: Sequence[shapes.Pair]) -> tuple[int, int]:
    """All, each prompt once; those of responses."""
    read = sum(len(chosen[1]) + len(rejected[1]) for chosen, rejected in pairs)
    return read + sum(len(chosen[0]) for chosen, _ in pairs), read


def _weights(folder: Path) -> Weights:
    return weights_of(load_policy(folder, ours.DEVICE))


def _numbers(modules: Iterable[nn.Module]) -> int:
    return sum(module.weight.numel() for module in modules if isinstance(module, nn.Linear))


if __name__ == "__main__":
    main()

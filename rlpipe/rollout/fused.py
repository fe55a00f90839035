"""Decoding steps of the common decoder in few, large operations, for float32 weights on a CPU, autocast or not.

Llama, Qwen2, Qwen3 and Mistral are one design: RMS norms before attention and before a gated SiLU, rotary positions.
transformers runs a step of it in some sixty small operations a layer, which cost more than the arithmetic; here it is
about thirty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers import LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM
from transformers.cache_utils import DynamicCache

from rlpipe.ops.products import FewRows, few_rows, rounded, wide
from rlpipe.rollout.pools import Attending, SlotPool, serves_slots
from rlpipe.rollout.prompts import Prompts, padded, prefill

_CLASSES = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
# Rotary positions that depend on how long the text is.
_LIVE_ROTARY = ("dynamic", "longrope")
# How far apart, in units of the largest logit, the two ways to a step may be.
_TOLERANCE = 1e-4
# What a model's class makes of a step does not change while it lives: looked at once.
_agreed: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Map:
    """A linear map with what adapters add to it: `whole` of the states with what `down` makes of them behind."""

    whole: FewRows
    down: FewRows | None

    def __call__(self, states_RI: Tensor) -> Tensor:
        """[R, O]"""
        if self.down is not None:
            states_RI = states_RI.to(self.down.dtype)
            states_RI = torch.cat([states_RI, self.down(states_RI)], 1)
        return self.whole(states_RI)


@dataclass(frozen=True)
class _Layer:
    """A layer's weights.

    Attributes:
        before_H, after_H: the norms' before and after attention.
        qkv: queries, keys and values in one map.
        head_norm: [heads + key heads, D] Qwen3's norms of queries and keys; None elsewhere.
        out: of the attention.
        gate_up: both maps of the MLP that widen.
        down: the one that narrows.
    """

    before_H: Tensor
    after_H: Tensor
    qkv: _Map
    head_norm: Tensor | None
    out: _Map
    gate_up: _Map
    down: _Map


class FusedSteps:
    """Steps of a model that `fuses` approves, as its weights are now."""

    joinable = True

    def __init__(self, model: nn.Module, pool: Attending, longest: int) -> None:
        """`longest`: tokens of a prompt with its response, at most."""
        inner = _inner(model)
        config, decoder = inner.config, inner.model
        self.slots, self._model, self._pool = pool.slots, model, pool
        self._heads, self._shared = config.num_attention_heads, config.num_key_value_heads
        self._width, self._eps = decoder.layers[0].self_attn.head_dim, torch.tensor(config.rms_norm_eps)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        self._embedding_VH = inner.get_input_embeddings().weight
        # Beside an adapter that learns the head stays as it is, and is the largest map of all.
        learns = any(parameter.requires_grad for parameter in model.parameters())
        self._head = few_rows(inner.get_output_embeddings().weight, dtype, keep=learns)
        self._norm_H = decoder.norm.weight
        stacking = _Stacking(dtype)
        self._layers = [_layer(layer, self._heads, self._shared, stacking) for layer in decoder.layers]
        cos_1LD, sin_1LD = decoder.rotary_emb(self._embedding_VH, torch.arange(longest).unsqueeze(0))
        # Of a pair (a, b) at columns d and d + D/2, a turns into a cos - b sin and b into b cos + a sin.
        half = self._width // 2
        self._cos_LD, self._sin_LD = cos_1LD[0], torch.cat([-sin_1LD[0, :, :half], sin_1LD[0, :, half:]], 1)

    def enter(self, prompts: Prompts, source_N: Tensor) -> Tensor:
        """See `Steps`."""
        cache = DynamicCache(config=_inner(self._model).config)
        logits_PV = prefill(self._model, prompts, cache)
        self._pool.enter(cache, prompts.length_P, source_N)
        return logits_PV

    @torch.autocast("cpu", enabled=False)
    def step(self, token_R: Tensor, position_R: Tensor) -> Tensor:
        """See `Steps`."""
        states_RH = self._embedding_VH[token_R]
        turn = self._cos_LD[position_R].unsqueeze(1), self._sin_LD[position_R].unsqueeze(1)
        hidden = self._pool.hidden()
        for number, layer in enumerate(self._layers):
            query_RND, key_RND, value_RND = self._heads_of(layer, self._normed(states_RH, layer.before_H), turn)
            seen_RND = self._pool.attend(number, query_RND, key_RND, value_RND, hidden)
            states_RH += layer.out(seen_RND.flatten(1))
            gate_RI, up_RI = layer.gate_up(self._normed(states_RH, layer.after_H)).chunk(2, 1)
            states_RH += layer.down(silu(gate_RI).mul_(up_RI))
        self._pool.extended()
        return self._head(self._normed(states_RH, self._norm_H))

    def keep(self, rows: Sequence[int]) -> None:
        """See `Steps`."""
        self._pool.keep(torch.tensor(rows, dtype=torch.long))

    def _normed(self, states_RH: Tensor, weight_H: Tensor) -> Tensor:
        length_R1 = torch.linalg.vector_norm(states_RH, dim=1, keepdim=True)
        scale_R1 = torch.addcmul(self._eps, length_R1, length_R1, value=1 / len(weight_H)).rsqrt_()
        return (states_RH * scale_R1).mul_(weight_H)

    def _heads_of(self, layer: _Layer, states_RH: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """[R, heads, D] queries, and [R, key heads, D] keys and values, the former two turned to their positions."""
        all_RND = layer.qkv(states_RH).unflatten(1, (-1, self._width))
        turned_RND, value_RND = all_RND.split([self._heads + self._shared, self._shared], 1)
        if layer.head_norm is not None:
            turned_RND = turned_RND.float()
            scale_RN1 = (turned_RND.square().mean(-1, keepdim=True) + self._eps).rsqrt_()
            turned_RND = turned_RND * scale_RN1 * layer.head_norm
        cos_R1D, sin_R1D = turn
        turned_RND = (turned_RND * cos_R1D).addcmul_(turned_RND.roll(self._width // 2, -1), sin_R1D)
        query_RND, key_RND = turned_RND.split([self._heads, self._shared], 1)
        return query_RND, key_RND, value_RND


def fuses(model: nn.Module, longest: int) -> bool:
    """Whether `FusedSteps` steps as `model` does, for samples of `longest` tokens; tried out, not believed."""
    inner = _inner(model)
    if not _looks_known(inner, longest):
        return False
    if inner not in _agreed:
        _agreed[inner] = _agrees(inner)
    return _agreed[inner]


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _looks_known(inner: Any, longest: int) -> bool:
    config = inner.config
    return (
        type(inner) in _CLASSES
        and all(p.device.type == "cpu" and p.dtype == torch.float32 for p in inner.parameters())
        and config.hidden_act == "silu"
        and config.rope_parameters.get("rope_type", "default") not in _LIVE_ROTARY
        and all(_plain(layer) for layer in inner.model.layers)
        and type(inner.lm_head) is nn.Linear
        and inner.lm_head.bias is None
        and serves_slots(config, longest)
    )


def _plain(layer: Any) -> bool:
    """Whether the maps behind which `_Layer` has no place for a bias have none."""
    maps = (layer.self_attn.o_proj, layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj)
    return all(linear.bias is None for linear in maps)


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
def _agrees(inner: Any) -> bool:
    """Whether two samples behind one prompt and one behind another get the logits that the model gives each alone."""
    prompts, source_N = padded([(0, 1, 1), (1,)], torch.device("cpu")), torch.tensor([0, 1, 0])
    steps = FusedSteps(inner, SlotPool(slots=3, columns=6, widest=3), longest=5)
    steps.enter(prompts, source_N)
    position_R = prompts.length_P[source_N]
    steps.step(torch.tensor([1, 1, 0]), position_R)
    fused_RV = steps.step(torch.tensor([0, 1, 1]), position_R + 1)
    alone = [[0, 1, 1, 1, 0], [1, 1, 1], [0, 1, 1, 0, 1]]
    whole_RV = torch.cat([inner(input_ids=torch.tensor([ids]), use_cache=False).logits[:, -1] for ids in alone])
    return (fused_RV - whole_RV).abs().max().item() <= _TOLERANCE * whole_RV.abs().max().item()


def _layer(layer: Any, heads: int, shared: int, stacking: _Stacking) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    maps = (attention.q_proj, attention.k_proj, attention.v_proj)
    head_norm = None
    if hasattr(attention, "q_norm"):
        of_query, of_key = attention.q_norm.weight, attention.k_norm.weight
        head_norm = torch.cat([of_query.expand(heads, -1), of_key.expand(shared, -1)])
    return _Layer(
        layer.input_layernorm.weight,
        layer.post_attention_layernorm.weight,
        stacking.stacked(*maps),
        head_norm,
        stacking.stacked(attention.o_proj),
        stacking.stacked(mlp.gate_proj, mlp.up_proj),
        stacking.stacked(mlp.down_proj),
    )


class _Stacking:
    """Makes one map of several of the same input, in a type, with what their LoRA adapters add.

        [W, scale U] [x, D x]

    An adapter stays beside its weight, as in training: most of what it adds is less than the last bit of a weight in
    bfloat16, and would be lost in their sum. Maps are put together in memory that is used again: new memory is dearer
    than all else here.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype, self._memory = dtype, torch.empty(0, dtype=dtype)

    def stacked(self, *maps: Any) -> _Map:
        """The maps' results one behind the other."""
        adapters = [_adapters(linear) for linear in maps]
        downs = [down_KI for of_map in adapters for down_KI, _ in of_map]
        width = maps[0].weight.shape[1]
        sizes = [len(linear.weight) for linear in maps]
        whole_OI = self._room(sum(sizes), width + sum(map(len, downs)))
        whole_OI[:, width:].zero_()
        column = width
        for linear, of_map, part_OI in zip(maps, adapters, whole_OI.split(sizes), strict=True):
            part_OI[:, :width].copy_(rounded(linear.weight, self._dtype))
            for down_KI, up_OK in of_map:
                part_OI[:, column : column + len(down_KI)].copy_(up_OK)
                column += len(down_KI)
        bias_N = None if maps[0].bias is None else self._typed(torch.cat([linear.bias for linear in maps]))
        down = FewRows(self._typed(torch.cat(downs))) if downs else None
        return _Map(FewRows(wide(whole_OI), bias_N), down)

    def _typed(self, tensor: Tensor) -> Tensor:
        return wide(tensor.to(self._dtype))

    def _room(self, rows: int, columns: int) -> Tensor:
        if self._memory.numel() < rows * columns:
            self._memory = torch.empty(rows * columns, dtype=self._dtype)
        return self._memory[: rows * columns].view(rows, columns)


def _adapters(linear: Any) -> list[tuple[Tensor, Tensor]]:
    """[K, I] and [O, K] of each adapter at work on a map, the latter scaled."""
    if not hasattr(linear, "get_delta_weight") or linear.merged or linear.disable_adapters:
        return []
    return [
        (linear.lora_A[name].weight, linear.lora_B[name].weight * linear.scaling[name])
        for name in linear.active_adapters
    ]

"""A model prepared to learn, and the frozen reference beside it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlpipe.config.schema import Adapter


def learner(model: PreTrainedModel, adapter: Adapter | None, *, scorer: bool = False) -> nn.Module:
    """What is trained: the model itself, or an adapter on it."""
    if adapter is None:
        return model
    from rlpipe.models.adapter import with_adapter

    return with_adapter(model, adapter, scorer=scorer)


class Reference(Protocol):
    """The policy as it once was. Use:  with reference() as model: ..."""

    def __call__(self) -> AbstractContextManager[nn.Module]: ...

    def refresh(self) -> None:
        """From now on the reference is the policy as it is now."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def reference_of(policy: nn.Module) -> Reference:
    """The policy as it is now, frozen: under LoRA the same weights with the adapter off, otherwise a copy."""
    return AdapterAside(policy) if hasattr(policy, "disable_adapter") else FrozenCopy(policy)


class FrozenCopy:
    """A second model, for a policy that trains all its weights."""

    def __init__(self, policy: nn.Module) -> None:
        self._policy = policy
        self._frozen = copy.deepcopy(policy).requires_grad_(False)

    @contextmanager
    def __call__(self) -> Iterator[nn.Module]:
        yield self._frozen

    def refresh(self) -> None:
        self._frozen.load_state_dict(self._policy.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return self._frozen.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._frozen.load_state_dict(state)


class AdapterAside:
    """The policy's own weights without its adapter; after a refresh, with the adapter of that moment.

    No second model is held: at most a second adapter.
    """

    def __init__(self, policy: nn.Module) -> None:
        self._policy = policy
        self._trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
        self._kept: dict[str, Tensor] = {}

    @contextmanager
    def __call__(self) -> Iterator[nn.Module]:
        if not self._kept:
            with self._policy.disable_adapter():  # type: ignore[operator]
                yield self._policy
            return
        current = _copied(self._trained)
        _put(self._kept, self._trained)
        try:
            yield self._policy
        finally:
            _put(current, self._trained)

    def refresh(self) -> None:
        self._kept = _copied(self._trained)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._kept)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._kept = dict(state)


class Snapshot:
    """The policy's trained weights at a moment, to go back to; nothing before the first `take`."""

    def __init__(self, policy: nn.Module) -> None:
        self._trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
        self._kept: dict[str, Tensor] = {}

    def take(self) -> None:
        """Remember the weights as they are now, instead of those remembered."""
        self._kept = _copied(self._trained)

    def put_back(self) -> None:
        """Give the policy the weights that were taken."""
        _put(self._kept, self._trained)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._kept)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._kept = dict(state)


def finished(policy: nn.Module) -> nn.Module:
    """The whole model, an adapter folded into its weights: what later stages start from."""
    if not hasattr(policy, "merge_and_unload"):
        return policy
    whole: nn.Module = policy.merge_and_unload()  # type: ignore[operator]
    # peft writes behind autograd's back, and what was made of these weights is not theirs any more.
    torch.autograd.graph.increment_version(list(whole.parameters()))
    return whole


def _copied(parameters: dict[str, Any]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


@torch.no_grad()
def _put(values: dict[str, Tensor], parameters: dict[str, Any]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])

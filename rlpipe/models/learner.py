"""A model prepared to learn, and the frozen reference beside it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import nn
from transformers import PreTrainedModel

from rlpipe.config.schema import Adapter

Reference = Callable[[], AbstractContextManager[nn.Module]]


def learner(model: PreTrainedModel, adapter: Adapter | None, *, scorer: bool = False) -> nn.Module:
    """What is trained: the model itself, or an adapter on it."""
    if adapter is None:
        return model
    from rlpipe.models.adapter import with_adapter

    return with_adapter(model, adapter, scorer=scorer)


def reference_of(policy: nn.Module) -> Reference:
    """The policy as it is now, frozen.

    Under LoRA it is the same weights with the adapter off, so that no second model is held; otherwise a copy.
    Use:  with reference() as model: ...
    """
    if hasattr(policy, "disable_adapter"):

        @contextmanager
        def adapter_off() -> Iterator[nn.Module]:
            with policy.disable_adapter():  # type: ignore[operator]
                yield policy

        return adapter_off

    frozen = copy.deepcopy(policy).requires_grad_(False)

    @contextmanager
    def frozen_copy() -> Iterator[nn.Module]:
        yield frozen

    return frozen_copy


def finished(policy: nn.Module) -> nn.Module:
    """The whole model, an adapter folded into its weights: what later stages start from."""
    return policy.merge_and_unload() if hasattr(policy, "merge_and_unload") else policy  # type: ignore[operator]

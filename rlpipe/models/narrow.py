"""A decoder's last layer, whose feed-forward part is computed for the tokens whose states are read, and for no others.

What comes after the last layer's attention looks at one token alone. Of a prompt's tokens only the last one's state is
read, where it predicts the response; the others are there to be attended to, which ends with that attention.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rlpipe.models.own import bind, release
from rlpipe.models.packing import Packing
from rlpipe.ops.rows import fetched

_PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")


def narrow(decoder: nn.Module) -> bool:
    """From now on the last layer makes the read tokens' states alone, in a packed pass; others are as they were.

    Returns: False, with nothing changed, if the last layer has not the parts of Llama's. Whether it puts them together
    in the same way is for the caller to try.
    """
    layer = _last_layer(decoder)
    if layer is None:
        return False
    bind(layer, _forward)
    return True


def widen(decoder: nn.Module) -> None:
    """Undo `narrow`."""
    release(_last_layer(decoder))


def _forward(layer: Any, hidden_states: Tensor, *, packing: Packing | None = None, **options: Any) -> Tensor:
    if packing is None:
        own: Tensor = type(layer).forward(layer, hidden_states, **options)
        return own
    attended_1NH, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), packing=packing, **options)
    states_1MH = fetched((hidden_states + attended_1NH)[0], packing.read_M).unsqueeze(0)
    made: Tensor = states_1MH + layer.mlp(layer.post_attention_layernorm(states_1MH))
    return made


def _last_layer(decoder: Any) -> Any:
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not all(hasattr(layers[-1], part) for part in _PARTS):
        return None
    return layers[-1]

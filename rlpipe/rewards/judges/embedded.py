"""The embedded judge: a small model of this pipeline's own task, which learned to say 1 or 0 behind a response."""

from __future__ import annotations

from rlpipe.rewards.judges.fence import Fence
from rlpipe.rewards.judges.templates import Template, one_turn

# Plain words around the texts would be noise to a model of a few characters. No nonce: nothing outside the texts
# speaks, and the only replies that count are the two it chooses between.
VERDICT = Template(system="", user="{prompt} {response}", replies={"1": 1.0, "0": 0.0})


def question(fence: Fence, prompt: str, response: str) -> str:
    """What the judge is asked of a response, as text: the same in training and in use."""
    return one_turn(VERDICT.messages(fence, (prompt, response)))


def reply(*, is_right: bool) -> str:
    """The reply that is the right one."""
    return "1" if is_right else "0"

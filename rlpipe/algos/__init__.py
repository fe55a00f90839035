"""One file per algorithm: a choice of ops. `ALGOS` is the table of all of them."""

from rlpipe.algos.base import PolicyAlgo, PreferenceAlgo
from rlpipe.algos.dpo import DPO
from rlpipe.algos.grpo import GRPO
from rlpipe.algos.ppo import PPO

ALGOS: dict[str, PolicyAlgo | PreferenceAlgo] = {
    "dpo": DPO,
    "ppo": PPO,
    "grpo": GRPO,
}

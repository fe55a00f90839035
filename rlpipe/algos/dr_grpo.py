from rlpipe.algos.base import KL, PolicyAlgo
from rlpipe.ops.advantages import group_centred
from rlpipe.ops.aggregate import constant_length
from rlpipe.ops.kl import k3
from rlpipe.ops.policy import ppo_clip

DR_GRPO = PolicyAlgo(
    name="dr_grpo",
    advantage=group_centred,
    policy_loss=ppo_clip,
    aggregate=constant_length,
    kl=KL(k3, placed="none"),
    source="arXiv:2503.20783",
    recommended={"clip_low": 0.2, "clip_high": 0.2},
)

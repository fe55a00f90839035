from rlpipe.algos.base import KL, PolicyAlgo
from rlpipe.ops.advantages import group_zscore
from rlpipe.ops.aggregate import token_mean
from rlpipe.ops.kl import k3
from rlpipe.ops.policy import ppo_clip

DAPO = PolicyAlgo(
    name="dapo",
    advantage=group_zscore,
    policy_loss=ppo_clip,
    aggregate=token_mean,
    kl=KL(k3, placed="none"),
    source="arXiv:2503.14476",
    recommended={"clip_low": 0.2, "clip_high": 0.28, "resample_rounds": 2},
)

from rlpipe.algos.base import KL, PolicyAlgo
from rlpipe.ops.advantages import group_zscore
from rlpipe.ops.aggregate import sequence_mean
from rlpipe.ops.kl import k3
from rlpipe.ops.policy import ppo_clip

GRPO = PolicyAlgo(
    name="grpo",
    advantage=group_zscore,
    policy_loss=ppo_clip,
    aggregate=sequence_mean,
    kl=KL(k3, placed="loss"),
    source="arXiv:2402.03300",
    recommended={"kl_coef": 0.04, "clip_low": 0.2, "clip_high": 0.2},
)

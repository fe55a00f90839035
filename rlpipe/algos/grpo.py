from rlpipe.algos.base import KL, Needs, PolicyAlgo
from rlpipe.ops.advantages import group_zscore
from rlpipe.ops.aggregate import sequence_mean
from rlpipe.ops.kl import k3
from rlpipe.ops.policy import ppo_clip

GRPO = PolicyAlgo(
    name="grpo",
    advantage=group_zscore,
    token_loss=ppo_clip,
    aggregate=sequence_mean,
    kl=KL(k3, placed="loss"),
    needs=Needs(group=2, why_group="it compares each sample with its siblings"),
    source="arXiv:2402.03300",
)

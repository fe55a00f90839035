from rlpipe.algos.base import KL, PolicyAlgo
from rlpipe.ops.advantages import group_zscore
from rlpipe.ops.aggregate import sequence_mean
from rlpipe.ops.kl import k3
from rlpipe.ops.policy import gspo

GSPO = PolicyAlgo(
    name="gspo",
    advantage=group_zscore,
    policy_loss=gspo,
    aggregate=sequence_mean,
    kl=KL(k3, placed="none"),
    source="arXiv:2507.18071",
    recommended={"clip_low": 0.0003, "clip_high": 0.0004},
)

from rlpipe.algos.base import KL, PolicyAlgo
from rlpipe.ops.advantages import group_zscore
from rlpipe.ops.aggregate import token_mean
from rlpipe.ops.kl import k3
from rlpipe.ops.policy import truncated_is

CISPO = PolicyAlgo(
    name="cispo",
    advantage=group_zscore,
    policy_loss=truncated_is,
    aggregate=token_mean,
    kl=KL(k3, placed="none"),
    source="arXiv:2506.13585",
    recommended={"is_cap": 5.0},
)

from rlpipe.algos.base import KL, PolicyAlgo
from rlpipe.ops.advantages import batch_zscore
from rlpipe.ops.aggregate import token_mean
from rlpipe.ops.kl import k1
from rlpipe.ops.policy import truncated_is

IMPORTANCE_SAMPLING = PolicyAlgo(
    name="importance_sampling",
    advantage=batch_zscore,
    policy_loss=truncated_is,
    aggregate=token_mean,
    kl=KL(k1, placed="reward"),
    replay=True,
    source="arXiv:1611.01224 section 3.1",
    recommended={"kl_coef": 0.05, "gamma": 1.0, "is_cap": 10.0, "replay_steps": 4, "replay_updates": 2},
)

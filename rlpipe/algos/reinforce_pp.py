from rlpipe.algos.base import KL, PolicyAlgo
from rlpipe.ops.advantages import batch_zscore
from rlpipe.ops.aggregate import token_mean
from rlpipe.ops.kl import k1
from rlpipe.ops.policy import ppo_clip

REINFORCE_PP = PolicyAlgo(
    name="reinforce_pp",
    advantage=batch_zscore,
    policy_loss=ppo_clip,
    aggregate=token_mean,
    kl=KL(k1, placed="reward"),
    source="arXiv:2501.03262",
    recommended={"kl_coef": 0.01, "gamma": 1.0, "clip_low": 0.2, "clip_high": 0.2},
)

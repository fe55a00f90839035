from rlpipe.algos.base import KL, PolicyAlgo
from rlpipe.ops.advantages import gae_whitened
from rlpipe.ops.aggregate import token_mean
from rlpipe.ops.kl import k1
from rlpipe.ops.policy import ppo_clip
from rlpipe.ops.value import value_clipped

PPO = PolicyAlgo(
    name="ppo",
    advantage=gae_whitened,
    policy_loss=ppo_clip,
    aggregate=token_mean,
    kl=KL(k1, placed="reward"),
    baseline="critic",
    value_loss=value_clipped,
    source="arXiv:1707.06347; for language models arXiv:1909.08593",
    recommended={
        "kl_coef": 0.05,
        "clip_low": 0.2,
        "clip_high": 0.2,
        "gamma": 1.0,
        "lam": 0.95,
        "value_coef": 0.5,
        "value_clip": 0.2,
    },
)

from rlpipe.algos.base import KL, PolicyAlgo
from rlpipe.ops.advantages import gae_whitened
from rlpipe.ops.aggregate import token_mean
from rlpipe.ops.control import rising
from rlpipe.ops.kl import k3
from rlpipe.ops.policy import ppo_clip
from rlpipe.ops.value import value_clipped

CONSERVATIVE_PPO = PolicyAlgo(
    name="conservative_ppo",
    advantage=gae_whitened,
    policy_loss=ppo_clip,
    aggregate=token_mean,
    kl=KL(k3, placed="hinge", control=rising),
    baseline="critic",
    value_loss=value_clipped,
    source="arXiv:1707.06347 section 4; a penalty on the excess alone: see rlpipe.ops.kl.hinge",
    recommended={
        "kl_coef": 1.0,
        "kl_threshold": 1.0,
        "kl_target": 1.0,
        "clip_low": 0.2,
        "clip_high": 0.2,
        "gamma": 1.0,
        "lam": 0.95,
        "value_coef": 0.5,
        "value_clip": 0.2,
    },
)

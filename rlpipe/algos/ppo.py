from rlpipe.algos.base import KL, PolicyAlgo
from rlpipe.ops.advantages import gae_whitened
from rlpipe.ops.aggregate import token_mean
from rlpipe.ops.kl import k1
from rlpipe.ops.policy import ppo_clip
from rlpipe.ops.value import value_clipped

PPO = PolicyAlgo(
    name="ppo",
    advantage=gae_whitened,
    token_loss=ppo_clip,
    aggregate=token_mean,
    value_loss=value_clipped,
    kl=KL(k1, placed="reward"),
    source="arXiv:1707.06347; for language models arXiv:1909.08593",
)

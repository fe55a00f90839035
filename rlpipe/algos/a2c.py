from rlpipe.algos.base import KL, PolicyAlgo
from rlpipe.ops.advantages import n_step_td
from rlpipe.ops.aggregate import token_mean
from rlpipe.ops.kl import k1
from rlpipe.ops.policy import reinforce
from rlpipe.ops.value import value_squared

A2C = PolicyAlgo(
    name="a2c",
    advantage=n_step_td,
    policy_loss=reinforce,
    aggregate=token_mean,
    kl=KL(k1, placed="reward"),
    baseline="critic_head",
    value_loss=value_squared,
    source="arXiv:1602.01783",
    recommended={"kl_coef": 0.05, "gamma": 1.0, "td_steps": 5, "value_coef": 0.5, "entropy_coef": 0.01},
)

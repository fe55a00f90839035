from rlpipe.algos.base import KL, PolicyAlgo
from rlpipe.ops.advantages import monte_carlo
from rlpipe.ops.aggregate import sequence_sum
from rlpipe.ops.kl import k1
from rlpipe.ops.policy import reinforce

REINFORCE = PolicyAlgo(
    name="reinforce",
    advantage=monte_carlo,
    policy_loss=reinforce,
    aggregate=sequence_sum,
    kl=KL(k1, placed="reward"),
    baseline="running_mean",
    source="R. J. Williams, Machine Learning 8, 1992; KL in the reward arXiv:1909.08593",
    recommended={"kl_coef": 0.05, "gamma": 1.0, "baseline_decay": 0.9},
)

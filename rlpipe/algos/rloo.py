from rlpipe.algos.base import KL, PolicyAlgo
from rlpipe.ops.advantages import leave_one_out
from rlpipe.ops.aggregate import sequence_sum
from rlpipe.ops.kl import k1
from rlpipe.ops.policy import reinforce

RLOO = PolicyAlgo(
    name="rloo",
    advantage=leave_one_out,
    policy_loss=reinforce,
    aggregate=sequence_sum,
    kl=KL(k1, placed="reward"),
    source="arXiv:2402.14740",
    recommended={"kl_coef": 0.05},
)

from rlpipe.algos.base import DistillationAlgo
from rlpipe.ops.distill import reverse_kl

ON_POLICY_DISTILLATION = DistillationAlgo(
    name="on_policy_distillation",
    divergence=reverse_kl,
    samples_of="student",
    source="arXiv:2306.13649",
)

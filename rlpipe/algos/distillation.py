from rlpipe.algos.base import DistillationAlgo
from rlpipe.ops.distill import soft_targets

DISTILLATION = DistillationAlgo(
    name="distillation",
    divergence=soft_targets,
    samples_of="teacher",
    source="arXiv:1503.02531",
    recommended={"distill_temperature": 2.0, "distill_alpha": 0.5},
)

from rlpipe.algos.base import StageAlgo
from rlpipe.ops.logprobs import selective_log_softmax

SFT = StageAlgo(
    name="sft",
    stage="sft",
    loss=selective_log_softmax,
    requires=("demonstrations",),
    learns_policies=True,
    source="arXiv:2203.02155 section 3.5",
)

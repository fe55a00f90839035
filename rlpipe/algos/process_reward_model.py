from rlpipe.algos.base import StageAlgo
from rlpipe.ops.steps import step_cross_entropy

PROCESS_REWARD_MODEL = StageAlgo(
    name="process_reward_model",
    stage="process_reward_model",
    loss=step_cross_entropy,
    requires=("step labels",),
    source="arXiv:2305.20050",
)

from rlpipe.algos.base import StageAlgo
from rlpipe.ops.preference import bradley_terry

REWARD_MODEL = StageAlgo(
    name="reward_model",
    stage="reward_model",
    loss=bradley_terry,
    requires=("pairs",),
    source="arXiv:2203.02155",
    recommended={"temperature": 1.0, "margin_coef": 0.0, "centring_coef": 0.0},
)

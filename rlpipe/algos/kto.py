from rlpipe.algos.base import PreferenceAlgo
from rlpipe.ops.preference import kto

KTO = PreferenceAlgo(
    name="kto",
    pair_loss=kto,
    source="arXiv:2402.01306",
    recommended={"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
)

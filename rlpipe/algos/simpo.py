from rlpipe.algos.base import PreferenceAlgo
from rlpipe.ops.preference import simpo

SIMPO = PreferenceAlgo(
    name="simpo",
    pair_loss=simpo,
    source="arXiv:2405.14734",
    recommended={"beta": 2.0, "target_margin": 1.0},
)

from rlpipe.algos.base import PreferenceAlgo
from rlpipe.ops.preference import dpo

DPO = PreferenceAlgo(
    name="dpo",
    pair_loss=dpo,
    source="arXiv:2305.18290",
    recommended={"beta": 0.1, "label_smoothing": 0.0},
)

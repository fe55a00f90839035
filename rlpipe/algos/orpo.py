from rlpipe.algos.base import PreferenceAlgo
from rlpipe.ops.preference import orpo

ORPO = PreferenceAlgo(name="orpo", pair_loss=orpo, source="arXiv:2403.07691", recommended={"odds_weight": 0.1})

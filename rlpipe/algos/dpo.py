from rlpipe.algos.base import PreferenceAlgo
from rlpipe.ops.preference import dpo

DPO = PreferenceAlgo(name="dpo", pair_loss=dpo, source="arXiv:2305.18290")

from rlpipe.algos.base import PreferenceAlgo
from rlpipe.ops.preference import ipo

IPO = PreferenceAlgo(name="ipo", pair_loss=ipo, source="arXiv:2310.12036", recommended={"tau": 0.1})

"""One file per algorithm: a choice of ops. `ALGOS` is the table of all of them."""

from rlpipe.algos.a2c import A2C
from rlpipe.algos.base import Algo
from rlpipe.algos.cispo import CISPO
from rlpipe.algos.conservative_ppo import CONSERVATIVE_PPO
from rlpipe.algos.dapo import DAPO
from rlpipe.algos.distillation import DISTILLATION
from rlpipe.algos.dpo import DPO
from rlpipe.algos.dr_grpo import DR_GRPO
from rlpipe.algos.grpo import GRPO
from rlpipe.algos.gspo import GSPO
from rlpipe.algos.importance_sampling import IMPORTANCE_SAMPLING
from rlpipe.algos.ipo import IPO
from rlpipe.algos.kto import KTO
from rlpipe.algos.on_policy_distillation import ON_POLICY_DISTILLATION
from rlpipe.algos.orpo import ORPO
from rlpipe.algos.ppo import PPO
from rlpipe.algos.process_reward_model import PROCESS_REWARD_MODEL
from rlpipe.algos.reinforce import REINFORCE
from rlpipe.algos.reinforce_pp import REINFORCE_PP
from rlpipe.algos.reward_model import REWARD_MODEL
from rlpipe.algos.rloo import RLOO
from rlpipe.algos.sft import SFT
from rlpipe.algos.simpo import SIMPO

ALGOS: dict[str, Algo] = {
    "sft": SFT,
    "reward_model": REWARD_MODEL,
    "process_reward_model": PROCESS_REWARD_MODEL,
    "dpo": DPO,
    "ipo": IPO,
    "simpo": SIMPO,
    "kto": KTO,
    "orpo": ORPO,
    "reinforce": REINFORCE,
    "reinforce_pp": REINFORCE_PP,
    "rloo": RLOO,
    "a2c": A2C,
    "ppo": PPO,
    "conservative_ppo": CONSERVATIVE_PPO,
    "grpo": GRPO,
    "dr_grpo": DR_GRPO,
    "dapo": DAPO,
    "gspo": GSPO,
    "cispo": CISPO,
    "importance_sampling": IMPORTANCE_SAMPLING,
    "on_policy_distillation": ON_POLICY_DISTILLATION,
    "distillation": DISTILLATION,
}

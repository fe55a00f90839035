"""params.yaml is strict: what is wrong is named with its key, its value, the rule and the remedy."""

from pathlib import Path

import pytest

from rlpipe.algos.plan import plans
from rlpipe.config import parse
from rlpipe.config.edit import edited
from rlpipe.errors import ConfigError

TEXT = (Path(__file__).resolve().parents[3] / "params.yaml").read_text()


def _refused(*assignments, preset=None):
    with pytest.raises(ConfigError) as error:
        plans(parse(edited(TEXT, preset, assignments)))
    return str(error.value)


def test_the_file_in_the_checkout_is_valid():
    assert set(plans(parse(TEXT))) == {"dpo", "ppo", "grpo", "rlaif"}


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("sft.optim.lrr=1.0", "sft.optim.lrr: unknown key. Did you mean 'lr'?"),
        ("polcy.grpo.steps=3", "polcy: unknown key. Did you mean 'policy'?"),
        ("policy.grppo.steps=3", "policy.grppo: unknown key. Did you mean 'grpo'?"),
        ("policy.grpo.kl_cof=0.1", "policy.grpo.kl_cof: 'grpo' has no such key. Did you mean 'kl_coef'?"),
        ("policy.grpo.algorithm=gprpo", "policy.grpo.algorithm=gprpo: unknown algorithm. Did you mean 'grpo'?"),
        ("sft.steps=-3", "sft.steps=-3: Input should be greater than or equal to 1."),
        ("policy.ppo.clip_low=1.5", "policy.ppo.clip_low=1.5: Input should be less than 1."),
        ("policy.grpo.kl_coef=-0.1", "policy.grpo.kl_coef=-0.1: Input should be greater than or equal to 0."),
        ("policy.grpo.value_clip=0.2", "policy.grpo.value_clip=0.2: without a critic (baseline=none) there are no old"),
        ("policy.ppo.gamma=null", "policy.ppo.gamma: missing; 'ppo' reads it. Add the key."),
        ("runtime.dtype=fp16", "runtime.dtype='fp16': Input should be 'float32' or 'bfloat16'."),
        ("policy.grpo.group_size=1", "'grpo' (advantage group_zscore) needs at least 2 samples per prompt (it"),
        ("policy.grpo.minibatches=3", "128 sequences a step do not divide into that many equal parts."),
        ("policy.ppo.learns_from=data/prepared", "its reward names reward_model. Set models/reward_model/NAME."),
        (
            "policy.ppo.learns_from=models/reward_model/glod",
            "no stage writes it. Did you mean 'models/reward_model/gold'",
        ),
        (
            "policy.grpo.starts_from=models/sfft",
            "policy.grpo.starts_from=models/sfft: no stage writes it. Did you mean",
        ),
        ("policy.rlaif.learns_from=data/prepared", "its reward names judge. Set models/judge."),
        ("pairs.gold.source=none", "the source of these pairs is none, so there are no pairs and no reward model."),
        ("pairs.gold.reward=null", "a judge labels here, from models/judge; set that, or change reward"),
        ("pairs.gold.labels_from=models/judge", "a verifier labels here, from data/prepared; set that, or"),
        ("judge.kind=local", "kind local needs name_or_path, a hub id or a folder; set it"),
        ("judge.kind=openai", "kind openai needs the section openai (model, temperature, ...); set it"),
        ("judge.tie_margin=1.0", "judge.tie_margin=1.0: Input should be less than 1."),
        ("evaluate.models=[sft,ppoo]", "no model 'ppoo'. Did you mean 'ppo'?"),
        ("evaluate.models=[ppo]", "'sft' is missing. Every policy is compared with it; add it."),
        ("data.arithmetic.slip_rate=0.9", "exceed 1: a demonstration has at most one fault"),
        ("sft.steps", "-S sft.steps: expected key=value"),
        ("sft.steps={", "no valid YAML"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(assignment, said):
    assert said in _refused(assignment)


def test_a_margin_of_scores_is_refused_where_the_judge_compares_otherwise():
    said = "tie_margin 0.1 is for a judge that knows scores only (embedded, rubric), and kind is local; set 0.0"
    assert said in _refused("judge.kind=local", "judge.name_or_path=models/mine", "judge.tie_margin=0.1")
    for kind in ("embedded", "rubric"):
        assert parse(edited(TEXT, None, [f"judge.kind={kind}", "judge.tie_margin=0.1"])).judge.tie_margin == 0.1


def test_every_mistake_is_listed_at_once():
    text = TEXT.replace("\nseed: 17", "\nseed: -1").replace("slots: 2", "slots: 0")
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert str(error.value).splitlines() == [
        "seed=-1: Input should be greater than or equal to 0.",
        "runtime.slots=0: Input should be greater than or equal to 1.",
    ]


def test_an_override_keeps_comments_and_every_other_line():
    changed = edited(TEXT, None, ["policy.grpo.kl_coef=0.1"])
    differing = [new for old, new in zip(TEXT.splitlines(), changed.splitlines(), strict=True) if old != new]
    assert differing == ["    kl_coef: 0.1"]


def test_a_preset_is_laid_over_and_null_removes_a_policy():
    preset = "policy: {dpo: null, rlaif: null}\nevaluate: {models: [sft, grpo]}\nsft: {steps: 7}\n"
    params = parse(edited(TEXT, preset, ["policy.ppo=null"]))
    assert list(params.policy) == ["grpo"]
    assert params.sft.steps == 7
    assert params.sft.batch_size == parse(TEXT).sft.batch_size


def test_a_presets_reward_replaces_the_weights_rather_than_adding_to_them():
    params = parse(edited(TEXT, "pairs: {gold: {reward: {format: 1.0}}}", []))
    assert {name: part.weight for name, part in params.pairs["gold"].reward.items()} == {"format": 1.0}


def test_numbers_in_scientific_notation_are_numbers():
    assert parse(edited(TEXT, None, ["sft.optim.lr=1e-3"])).sft.optim.lr == 0.001

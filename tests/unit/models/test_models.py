"""What is written loads back with the Auto classes; the reference is what the policy was."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlpipe.config.schema import Adapter
from rlpipe.dataio.chat import decode, response_ids
from rlpipe.dataio.collate import collate
from rlpipe.dataio.tokenizers import characters
from rlpipe.dataio.tokenizers import load as load_tokenizer
from rlpipe.errors import ModelError
from rlpipe.models.forward import response_logits, response_states, response_stats, sequence_scores, token_scores
from rlpipe.models.learner import finished, learner, reference_of
from rlpipe.models.load import (
    load_policy,
    load_scorer,
    load_teacher,
    new_critic,
    new_reward_model,
    normaliser,
    save,
    with_normaliser,
)

CPU = torch.device("cpu")
ADAPTER = Adapter(rank=4, alpha=8, dropout=0.0)
PAIRS = [((5, 6, 7), (8, 9, 10, 1)), ((5,), (11, 1)), ((6, 7), (12, 13, 1))]


def _logp(model, batch):
    with torch.no_grad():
        return response_stats(model, batch, temperature=1.0).logp_BT


def test_response_log_probs_match_a_plain_forward_without_padding(tiny):
    batched = _logp(tiny, collate(PAIRS, 0))
    for row, (prompt, response) in enumerate(PAIRS):
        ids = torch.tensor([[*prompt, *response]])
        with torch.no_grad():
            plain = tiny(input_ids=ids).logits.log_softmax(-1)
        expected = [plain[0, len(prompt) + t - 1, token].item() for t, token in enumerate(response)]
        assert batched[row, : len(response)].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_saved_policy_loads_with_the_auto_classes(tiny, tokenizer, tmp_path):
    save(tiny, tokenizer, tmp_path / "policy")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    batch = collate(PAIRS, 0)
    torch.testing.assert_close(_logp(again, batch), _logp(tiny, batch))


def test_the_tokenizer_beside_a_model_loads_as_what_was_saved(tiny, tokenizer, tmp_path):
    # AutoTokenizer looks at the model's type too, and for some types replaces the tokenizer's own rules.
    save(tiny, tokenizer, tmp_path / "policy")
    text = "<think>6+5=11 11-6=5</think><answer>5</answer>"
    for again in (AutoTokenizer.from_pretrained(tmp_path / "policy"), load_tokenizer(tmp_path / "policy")):
        assert again.chat_template == tokenizer.chat_template
        assert response_ids(again, text) == response_ids(tokenizer, text)
        assert decode(again, response_ids(again, text)) == text


def test_an_adapter_learns_alone_and_its_reference_is_the_policy_with_it_off(tiny):
    batch, before = collate(PAIRS, 0), _logp(tiny, collate(PAIRS, 0))
    policy = learner(tiny, ADAPTER)
    reference = reference_of(policy)
    trained = [name for name, p in policy.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05)
    assert not torch.allclose(_logp(policy, batch), before)
    with reference() as model:
        torch.testing.assert_close(_logp(model, batch), before)


def test_a_saved_adapter_loads_with_peft_and_with_ours(tiny, tokenizer, tmp_path, monkeypatch):
    from peft import PeftModel

    monkeypatch.chdir(tmp_path)
    save(tiny, tokenizer, tmp_path / "models/sft")
    policy = learner(load_policy("models/sft", CPU), ADAPTER)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05)
    save(policy, tokenizer, tmp_path / "models/grpo")
    batch = collate(PAIRS, 0)
    expected = _logp(policy, batch)
    base = AutoModelForCausalLM.from_pretrained("models/sft")
    torch.testing.assert_close(_logp(PeftModel.from_pretrained(base, "models/grpo"), batch), expected)
    torch.testing.assert_close(_logp(load_policy("models/grpo", CPU), batch), expected, atol=1e-5, rtol=1e-5)
    config = (tmp_path / "models/grpo/adapter_config.json").read_text()
    assert str(tmp_path) not in config  # no path of this machine in an output


def test_a_full_reference_stays_when_the_policy_moves(tiny):
    batch, before = collate(PAIRS, 0), _logp(tiny, collate(PAIRS, 0))
    reference = reference_of(tiny)
    with torch.no_grad():
        next(tiny.parameters()).add_(0.1)
    with reference() as model:
        torch.testing.assert_close(_logp(model, batch), before)


@pytest.mark.parametrize("adapter", [None, ADAPTER])
def test_a_refreshed_reference_is_the_policy_of_that_moment(tiny, adapter):
    policy, batch = learner(tiny, adapter), collate(PAIRS, 0)
    reference = reference_of(policy)

    def move():
        with torch.no_grad():
            for parameter in policy.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05)

    move()
    refreshed = _logp(policy, batch)
    reference.refresh()
    saved = copy.deepcopy(reference.state_dict())
    move()
    moved = _logp(policy, batch)
    assert not torch.allclose(moved, refreshed)
    with reference() as model:
        torch.testing.assert_close(_logp(model, batch), refreshed)
    torch.testing.assert_close(_logp(policy, batch), moved, rtol=0, atol=0)  # the policy is put back, bit for bit
    restored = reference_of(policy)
    restored.load_state_dict(saved)
    with restored() as model:
        torch.testing.assert_close(_logp(model, batch), refreshed)


def test_hidden_states_are_those_that_the_logits_come_from(tiny):
    batch = collate(PAIRS, 0)
    with torch.no_grad():
        states = response_states(tiny, batch)
        hidden_BTH = states.before_response()
        torch.testing.assert_close(tiny.lm_head(hidden_BTH), response_logits(tiny, batch).logits_BTV)
        torch.testing.assert_close(response_stats(tiny, batch, temperature=1.0).states.states_NH, states.states_NH)


def test_a_teacher_with_another_vocabulary_is_refused(tiny, tokenizer, tmp_path):
    save(tiny, tokenizer, tmp_path / "teacher")
    assert not any(p.requires_grad for p in load_teacher(tmp_path / "teacher", tokenizer, CPU).parameters())
    with pytest.raises(ModelError, match="vocabulary"):
        load_teacher(tmp_path / "teacher", characters(["abc"], 64), CPU)


def test_a_merged_adapter_is_the_whole_model(tiny):
    policy = learner(tiny, ADAPTER)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05)
    batch = collate(PAIRS, 0)
    expected = _logp(policy, batch)
    torch.testing.assert_close(_logp(finished(policy), batch), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("adapter", [None, ADAPTER])
def test_a_scorer_scores_the_last_real_token_whatever_the_padding(tiny, tokenizer, tmp_path, adapter):
    save(tiny, tokenizer, tmp_path / "sft")
    model = learner(new_reward_model(tmp_path / "sft", CPU), adapter, scorer=True).eval()
    with torch.no_grad():
        together = sequence_scores(model, collate(PAIRS, 0))
        alone = torch.cat([sequence_scores(model, collate([pair], 0)) for pair in PAIRS])
    torch.testing.assert_close(together, alone)


def test_a_saved_scorer_agrees_with_transformers_own_forward(tiny, tokenizer, tmp_path):
    save(tiny, tokenizer, tmp_path / "sft")
    scorer = with_normaliser(new_reward_model(tmp_path / "sft", CPU), 0.5, 2.0)
    save(scorer, tokenizer, tmp_path / "rm")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    prompt, response = PAIRS[0]
    with torch.no_grad():
        expected = again(input_ids=torch.tensor([[*prompt, *response]])).logits[0]
        torch.testing.assert_close(sequence_scores(load_scorer(tmp_path / "rm", CPU), collate([PAIRS[0]], 0)), expected)
    assert normaliser(load_scorer(tmp_path / "rm", CPU)) == (0.5, 2.0)


def test_a_new_critic_values_everything_at_zero(tiny, tokenizer, tmp_path):
    save(tiny, tokenizer, tmp_path / "sft")
    with torch.no_grad():
        assert token_scores(new_critic(tmp_path / "sft", CPU), collate(PAIRS, 0)).abs().max() == 0


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        load_policy(tmp_path / "nowhere", CPU)

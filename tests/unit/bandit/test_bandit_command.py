"""`rlpipe bandit` as people meet it."""

import pytest

from rlpipe.cli import main


def _run(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main(["bandit", *arguments])
    return exit_.value.code


def test_it_prints_settings_arms_and_distance(capsys, tmp_path):
    picture = tmp_path / "grpo.png"
    assert _run("--algo", "grpo", "--steps", "3", "--beta", "0.25", "--plot", str(picture)) == 0
    text = capsys.readouterr().out
    assert "advantage group_zscore · policy_loss ppo_clip" in text
    assert "kl_coef 0.25" in text
    assert "total variation to the target" in text
    # Three prompts of four arms each.
    assert sum(line.split()[:1] in (["0"], ["1"], ["2"]) for line in text.splitlines()) == 12
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algo", "reinforc"], "--algo reinforc: unknown. Did you mean 'reinforce'?"),
        (["--algo", "sft"], "--algo sft: it has no policy to compare with an optimum"),
        (["--algo", "dapo", "--beta", "0.1"], "kl_placed is none"),
        (["--algo", "on_policy_distillation", "--beta", "0.1"], "it learns a teacher"),
        (["--algo", "rloo", "-S", "kl_place=loss"], "Did you mean 'kl_placed'?"),
        (["--algo", "rloo", "-S", "kl_placed"], "expected key=value"),
        (["--algo", "rloo", "-S", "group_size=1"], "needs at least 2 samples per prompt"),
        (["--algo", "rloo", "-S", "prompts_per_step=4"], "the bandit has 3 prompts"),
        (["--algo", "rloo", "--steps", "0"], "steps=0"),
    ],
)
def test_mistakes_are_refused_with_a_remedy(arguments, message, capsys):
    assert _run(*arguments) == 2
    assert message in capsys.readouterr().err

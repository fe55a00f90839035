"""`rlpipe`: run the pipeline, adopt a run, check the parameters, score a file, serve the flow."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rlpipe.errors import RlpipeError


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run, and exit: 0 well, 1 a stage failed, 2 a mistake in what was asked.

    Imports wait until a command is chosen, so that `rlpipe --help` answers at once.
    """
    arguments = _parser().parse_args(argv)
    try:
        sys.exit(arguments.command(arguments))
    except RlpipeError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rlpipe", description="Reproducible RL post-training of language models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="bring every stage up to date; with overrides, in a workspace of its own")
    _add_overrides(run)
    run.add_argument("--algos", type=_names, default=[], metavar="A,B,...", help="policies for these algorithms, or "
                     "for `all`, instead of those in params.yaml; their budget is its `recipe`")  # fmt: skip
    run.add_argument("--name", help="the workspace's name in runs/; made from the overrides if left out")
    run.set_defaults(command=_run)

    bakeoff = commands.add_parser("bakeoff", help="compare algorithms over seeds, at an equal budget of tokens")
    _add_overrides(bakeoff)
    bakeoff.add_argument("--algos", type=_names, default=[], metavar="A,B,...",
                         help="the algorithms, or `all`; those of params.yaml if left out")  # fmt: skip
    bakeoff.add_argument("--seeds", type=int, help="how many, from the seed of params.yaml on; 3 if left out")
    bakeoff.add_argument("--threshold", type=float, help="the reward whose first reaching is timed in tokens; 0.6 if "
                         "left out")  # fmt: skip
    bakeoff.add_argument("--name", help="the folder's name in runs/; `bakeoff` and the overrides if left out")
    bakeoff.set_defaults(command=_bakeoff)

    algos = commands.add_parser("algos", help="list the algorithms, or show one: its section, its choices")
    algos.add_argument("name", nargs="?", help="an algorithm")
    algos.set_defaults(command=_algos)

    adopt = commands.add_parser("adopt", help="bring a run's params.yaml and dvc.lock into the checkout")
    adopt.add_argument("name", help="the workspace's name in runs/")
    adopt.set_defaults(command=_adopt)

    check = commands.add_parser("check", help="validate params.yaml and every policy section")
    check.set_defaults(command=_check)

    bandit = commands.add_parser("bandit", help="one algorithm on a table whose optimum is known, in seconds")
    bandit.add_argument("--algo", required=True, help="an algorithm that learns a policy, such as grpo")
    bandit.add_argument("--steps", type=int, help="steps to learn")
    bandit.add_argument("--seed", type=int, default=0)
    bandit.add_argument("--beta", type=float, help="weight of what holds the policy near its reference")
    bandit.add_argument(
        "-S", "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="a choice or number of the algorithm, such as kl_placed=reward; may be repeated",
    )  # fmt: skip
    bandit.add_argument("--plot", type=Path, metavar="FILE", help="also draw it, as PNG, SVG or PDF")
    bandit.set_defaults(command=_bandit)

    score = commands.add_parser("score", help="score a file of completions by one component")
    score.add_argument("--reward", required=True, metavar="NAME",
                       help="a verifier such as math_answer, reward_model, or your own module:function")  # fmt: skip
    score.add_argument("--input", type=Path, required=True, metavar="FILE",
                       help="JSON lines with prompt, completion, and what the verifier needs")  # fmt: skip
    score.add_argument("--output", type=Path, required=True, metavar="FILE",
                       help="the same rows with score (null where there is none) and reason")  # fmt: skip
    score.add_argument("-S", "--set", dest="options", action="append", default=[], metavar="KEY=VALUE",
                       help="an option of the verifier, such as max_length=200; may be repeated")  # fmt: skip
    score.set_defaults(command=_score)

    serve = commands.add_parser("serve", help="offer the flows as deployments of a running Prefect server")
    serve.set_defaults(command=_serve)

    stage = commands.add_parser("stage", help="run one stage's code; what dvc.yaml calls")
    stage.add_argument("name")
    stage.add_argument("item", nargs="?", default="")
    stage.set_defaults(command=_stage)
    return parser


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", help="a file of presets/, without its suffix")
    parser.add_argument(
        "-S", "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="override one key of params.yaml, such as policy.grpo.kl_coef=0.1; may be repeated",
    )  # fmt: skip


def _names(text: str) -> list[str]:
    """The names of a list with commas. Raises: ArgumentTypeError if there is none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("name at least one algorithm, such as grpo,dpo; `rlpipe algos` lists them")
    return names


def _run(arguments: argparse.Namespace) -> int:
    checkout = _at_the_door()
    from flows.entry import run
    from rlpipe import workspace

    asked = (arguments.preset, arguments.overrides, arguments.name, arguments.algos)
    with workspace.chosen(checkout, *asked) as (root, run_name):
        if root != checkout:
            _refuse_mistakes(root)
        return run(root, run_name)


def _bakeoff(arguments: argparse.Namespace) -> int:
    checkout = _at_the_door()
    from flows import entry
    from rlpipe import workspace

    seeds = entry.BAKEOFF_SEEDS if arguments.seeds is None else arguments.seeds
    threshold = entry.BAKEOFF_THRESHOLD if arguments.threshold is None else arguments.threshold
    asked = (arguments.preset, arguments.overrides, arguments.name, arguments.algos, seeds)
    with workspace.open_bakeoff(checkout, *asked) as opened:
        return entry.bakeoff(checkout, opened.name, list(opened.roots), threshold)


def _algos(arguments: argparse.Namespace) -> int:
    from rlpipe.comparison import catalogue
    from rlpipe.config import load

    _show(catalogue.table() if arguments.name is None else catalogue.card(arguments.name, load(Path()).recipe))
    return 0


def _refuse_mistakes(root: Path) -> None:
    """Overrides that no algorithm can work with are refused here, before anything starts. Raises: ConfigError."""
    from rlpipe.stages.runner import checked

    checked(root)


def _adopt(arguments: argparse.Namespace) -> int:
    checkout = _at_the_door()
    from rlpipe.workspace import adopt

    adopt(checkout, arguments.name)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from rlpipe.stages.runner import checked

    params = checked(Path())
    policies = ", ".join(f"{name} ({section.algorithm})" for name, section in params.policy.items())
    _show(f"params.yaml is valid. Policies: {policies}.")
    return 0


def _bandit(arguments: argparse.Namespace) -> int:
    import torch

    from rlpipe.bandit.demo import report, run

    # A table of twelve numbers: a second thread only waits for the first.
    torch.set_num_threads(1)
    outcome = run(arguments.algo, arguments.overrides, arguments.steps, arguments.beta, arguments.seed)
    _show(report(outcome))
    if arguments.plot is not None:
        from rlpipe.bandit.plot import save

        save(outcome, arguments.plot)
    return 0


def _score(arguments: argparse.Namespace) -> int:
    from rlpipe.scoring import score_file

    asked = (arguments.reward, arguments.options, arguments.input, arguments.output)
    _show(score_file(*asked, Path.cwd()))
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    _at_the_door()
    from flows.entry import serve

    serve()
    return 0


def _stage(arguments: argparse.Namespace) -> int:
    _at_the_door()
    from rlpipe.handover import handed_over

    code = handed_over(["stage", arguments.name, arguments.item])
    return _stage_here(arguments) if code is None else code


def _stage_here(arguments: argparse.Namespace) -> int:
    from rlpipe.environment import importing
    from rlpipe.tracking.beside import beside

    # A relative root: no path of this machine can get into an output.
    with beside(Path()):
        with importing():
            from rlpipe.stages.runner import run_stage

        run_stage(Path(), arguments.name, arguments.item)
    return 0


def _show(found: object) -> None:
    """Print. Who reads may have seen enough and gone, as `head` does."""
    try:
        print(found, flush=True)
    except BrokenPipeError:
        # At its end Python flushes once more, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _at_the_door() -> Path:
    """Set the environment before heavy imports, and return the checkout that we stand in."""
    from rlpipe.environment import prepare

    root = Path.cwd()
    prepare(root)
    return root

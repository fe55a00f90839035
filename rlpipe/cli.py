"""`rlpipe`: run the pipeline, adopt a run, check the parameters, serve the flow, run one stage."""

from __future__ import annotations

import argparse
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
    run.add_argument("--preset", help="a file of presets/, without its suffix")
    run.add_argument(
        "-S", "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="override one key of params.yaml, such as policy.grpo.kl_coef=0.1; may be repeated",
    )  # fmt: skip
    run.add_argument("--name", help="the workspace's name in runs/; made from the overrides if left out")
    run.set_defaults(command=_run)

    adopt = commands.add_parser("adopt", help="bring a run's params.yaml and dvc.lock into the checkout")
    adopt.add_argument("name", help="the workspace's name in runs/")
    adopt.set_defaults(command=_adopt)

    check = commands.add_parser("check", help="validate params.yaml and every policy section")
    check.set_defaults(command=_check)

    serve = commands.add_parser("serve", help="offer the flow as a deployment of a running Prefect server")
    serve.set_defaults(command=_serve)

    stage = commands.add_parser("stage", help="run one stage's code; what dvc.yaml calls")
    stage.add_argument("name")
    stage.add_argument("item", nargs="?", default="")
    stage.set_defaults(command=_stage)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    checkout = _at_the_door()
    from flows.entry import run
    from rlpipe import workspace

    with workspace.chosen(checkout, arguments.preset, arguments.overrides, arguments.name) as (root, run_name):
        if root != checkout:
            _refuse_mistakes(root)
        return run(root, run_name)


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
    print(f"params.yaml is valid. Policies: {policies}.")
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    _at_the_door()
    from flows.entry import serve

    serve()
    return 0


def _stage(arguments: argparse.Namespace) -> int:
    _at_the_door()
    from rlpipe.stages.runner import run_stage

    # A relative root: no path of this machine can get into an output.
    run_stage(Path(), arguments.name, arguments.item)
    return 0


def _at_the_door() -> Path:
    """Set the environment before heavy imports, and return the checkout that we stand in."""
    from rlpipe.environment import prepare

    root = Path.cwd()
    prepare(root)
    return root

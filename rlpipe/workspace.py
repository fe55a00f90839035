"""Workspaces: a run with overrides works in a git worktree of its own, `runs/<name>/`, beside the checkout.

It shares the checkout's DVC cache, run-cache included, so that what is unchanged is restored, and it never
touches a tracked file of the checkout. A bakeoff is a set of them, `runs/<name>-seed<seed>/`, and a folder
`runs/<name>/` for what they say together.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from rlpipe.config import parse
from rlpipe.config.edit import edited, with_policies
from rlpipe.errors import ConfigError, WorkspaceError, nearest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_LONGEST_NAME = 60
_CHECKOUT = "checkout"  # the name of a run in the checkout itself
_PATH_KEYS = ("data.path", "model.name_or_path")
# What choosing algorithms decides; an override of it would be lost without a word.
_DECIDED = re.compile(r"evaluate\.models|pairs\.[^.]+\.token_budget")
# Models that stages of their own write.
_SCORERS = ("reward_model", "process_reward_model", "judge")
_BAKEOFF = "bakeoff"  # the name of a bakeoff that is given none
_ADOPTED = ("params.yaml", "dvc.lock")
# Whatever the user's own settings for reading diffs are, this one is for `git apply`.
_PLAIN_DIFF = (
    "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames",
    "--src-prefix=a/", "--dst-prefix=b/",
)  # fmt: skip
# Set inside git hooks; they would point every git command at the checkout.
_GIT_CONTEXT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bakeoff:
    """A bakeoff's name, and each seed's workspace."""

    name: str
    roots: Mapping[int, Path]


def run_name(preset: str | None, assignments: Sequence[str], name: str | None, algos: Sequence[str] = ()) -> str:
    """The name of a run: `name` where one is given, else a readable one from what was asked for.

    Different wishes have different names: what a file name cannot hold is told apart by a short hash.

    Raises: WorkspaceError for a `name` that cannot name a folder.
    """
    if name is not None:
        if not _NAME.fullmatch(name) or name == _CHECKOUT:
            raise WorkspaceError(
                f"--name {name}: it names a folder in runs/, so use letters, digits and . _ + - (and not "
                f"{_CHECKOUT!r}, which is the run in the checkout itself)."
            )
        return name
    named_algos = [f"algos-{'+'.join(algos)}"] if algos else []
    parts = [*([] if preset is None else [preset]), *named_algos, *(text.replace("=", "-", 1) for text in assignments)]
    if not parts:
        return _CHECKOUT
    written = "+".join(parts)
    slug = re.sub(r"[^A-Za-z0-9._+-]+", "-", written).lstrip("._+-")
    if slug == written and len(slug) <= _LONGEST_NAME:
        return slug
    digest = hashlib.sha256("\0".join([preset or "", *named_algos, *assignments]).encode()).hexdigest()[:8]
    return f"{slug[: _LONGEST_NAME - 9].rstrip('._+-')}-{digest}"


@contextmanager
def chosen(
    checkout: Path, preset: str | None, assignments: Sequence[str], name: str | None, algos: Sequence[str] = ()
) -> Iterator[tuple[Path, str]]:
    """Where a run works, and its name: the checkout itself when nothing is asked for, else a workspace.

    Raises: what `open_workspace` does.
    """
    label = run_name(preset, assignments, name, algos)
    if label != _CHECKOUT:
        with open_workspace(checkout, label, preset, assignments, algos) as root:
            yield root, label
        return
    with _held(checkout, label):
        yield checkout, label


@contextmanager
def open_workspace(
    checkout: Path, name: str, preset: str | None, assignments: Sequence[str], algos: Sequence[str] = ()
) -> Iterator[Path]:
    """Create or refresh `runs/<name>/` and hold it for one run.

    It gets the checkout's commit and uncommitted tracked changes, and the checkout's params.yaml with the
    preset and then the assignments applied; where `algos` are named, its policies are a section for each of them.
    Outputs of an earlier run of that name stay, for DVC to judge.

    Raises: ConfigError for a wrong override or algorithm, before anything is made; WorkspaceError for an unknown
        preset, a workspace in use, or git's refusal.
    """
    text = _params(checkout, preset, assignments, algos)
    with _worktree(checkout, name, text) as root:
        yield root


@contextmanager
def open_bakeoff(
    checkout: Path,
    preset: str | None,
    assignments: Sequence[str],
    name: str | None,
    algos: Sequence[str],
    seeds: int,
) -> Iterator[Bakeoff]:
    """Create or refresh a workspace for each of `seeds` seeds, from that of params.yaml on, and hold them all.

    Without `algos`, those that the policies of params.yaml use. Without a `name`, one that does not depend on the
    algorithms: whoever adds one finds the others done.

    Raises: what `open_workspace` does, before any workspace is made where the mistake is in what was asked;
        WorkspaceError where `runs/<name>/` is a workspace.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: a bakeoff needs at least 1, and an interval over seeds at least 2.")
    label = bakeoff_name(preset, assignments, name)
    asked = parse(edited(_text(checkout), _preset(checkout, preset), assignments))
    algos = algos or list(dict.fromkeys(section.algorithm for section in asked.policy.values()))
    text = _params(checkout, preset, assignments, algos)
    folder = checkout / "runs" / label
    if (folder / ".git").exists():
        raise WorkspaceError(f"--name {label}: runs/{label} is the workspace of a run. Choose another name.")
    with ExitStack() as stack:
        stack.enter_context(_held(checkout, label))
        folder.mkdir(parents=True, exist_ok=True)
        roots = {
            seed: stack.enter_context(
                _worktree(checkout, seed_root(checkout, label, seed).name, edited(text, None, [f"seed={seed}"]))
            )
            for seed in range(asked.seed, asked.seed + seeds)
        }
        yield Bakeoff(label, roots)


def bakeoff_name(preset: str | None, assignments: Sequence[str], name: str | None) -> str:
    """The name of a bakeoff. Raises: WorkspaceError for a `name` that cannot name a folder."""
    if name is not None or (preset is None and not assignments):
        return run_name(None, [], _BAKEOFF if name is None else name)
    return f"{_BAKEOFF}+{run_name(preset, assignments, None)}"


def seed_root(checkout: Path, name: str, seed: int) -> Path:
    """The workspace of one seed of the bakeoff `name`."""
    return checkout / "runs" / f"{name}-seed{seed}"


def adopt(checkout: Path, name: str) -> None:
    """Bring the run `name` into the checkout: its params.yaml, its dvc.lock and, from the cache, its outputs.

    Raises: WorkspaceError when there is no such run, it is in use or unfinished, or the checkout's own
        params.yaml or dvc.lock has changes that are not committed. The checkout is then as it was.
    """
    root = checkout / "runs" / name
    if not (root / ".git").is_file():
        runs = sorted(path.parent.name for path in checkout.glob("runs/*/.git"))
        hint = nearest(name, runs) if runs else " There are no runs yet."
        raise WorkspaceError(f"adopt {name}: no such run.{hint}")
    with _held(checkout, name), _held(checkout, _CHECKOUT):
        for file in _ADOPTED:
            if _git(checkout, "status", "--porcelain", "--", file):
                raise WorkspaceError(
                    f"adopt {name}: the checkout's {file} has changes that are not committed, and adopting "
                    "would overwrite them. Commit or discard them first."
                )
        unfinished = json.loads(_dvc(root, "status", "--json"))
        if unfinished:
            raise WorkspaceError(
                f"adopt {name}: not finished: {', '.join(unfinished)}. Run it again under the same name."
            )
        before = {file: (checkout / file).read_bytes() for file in _ADOPTED if (checkout / file).exists()}
        try:
            for file in _ADOPTED:
                shutil.copyfile(root / file, checkout / file)
            _dvc(checkout, "checkout")
        except (OSError, WorkspaceError):
            for file in _ADOPTED:
                (checkout / file).unlink(missing_ok=True)
            for file, content in before.items():
                (checkout / file).write_bytes(content)
            raise


def _text(checkout: Path) -> str:
    return (checkout / "params.yaml").read_text(encoding="utf-8")


def _params(checkout: Path, preset: str | None, assignments: Sequence[str], algos: Sequence[str]) -> str:
    """The text of a workspace's params.yaml.

    With `algos`, overrides of `policy` apply to the sections that are written for them, all others before.

    Raises: ConfigError, WorkspaceError.
    """
    overlay = _preset(checkout, preset)
    if algos:
        text = _with_algorithms(checkout, overlay, assignments, algos)
    else:
        text = edited(_text(checkout), overlay, assignments)
    from rlpipe.algos.plan import plans  # torch takes seconds to import

    plans(parse(text))
    return text


def _with_algorithms(checkout: Path, overlay: str | None, assignments: Sequence[str], algos: Sequence[str]) -> str:
    for assignment in assignments:
        key = assignment.partition("=")[0].strip()
        if _DECIDED.fullmatch(key):
            raise ConfigError(
                f"-S {assignment}: choosing algorithms decides {key}: all of them are evaluated, and the pairs get "
                "the budget of recipe.online.token_budget. Remove it."
            )
    of_policies = [assignment for assignment in assignments if assignment.startswith("policy.")]
    others = [assignment for assignment in assignments if assignment not in of_policies]
    return edited(_for_algorithms(edited(_text(checkout), overlay, others), algos), None, of_policies)


def _for_algorithms(text: str, algos: Sequence[str]) -> str:
    """`text` with a policy section for each of `algos`, of which the name `all` means all. Raises: ConfigError."""
    from rlpipe.algos.sections import section, sectionable

    recipe = parse(text).recipe
    sections = {name: section(name, recipe) for name in (sectionable() if list(algos) == ["all"] else algos)}
    for name, made in sections.items():
        room, _, teacher = str(made["learns_from"]).partition("/")
        if room == "models" and teacher.partition("/")[0] not in (*_SCORERS, *sections):
            raise ConfigError(
                f"--algos: {name!r} learns from {made['learns_from']}, which {teacher!r} writes, and that is not "
                f"in the list. Add {teacher!r}, or set another teacher: -S recipe.distillation.learns_from=..."
            )
    return with_policies(text, sections)


def _preset(checkout: Path, preset: str | None) -> str | None:
    """The text of `presets/<preset>.yaml`."""
    if preset is None:
        return None
    known = {path.stem: path for path in sorted((checkout / "presets").glob("*.yaml"))}
    if preset not in known:
        hint = nearest(preset, known) if known else " There are no files in presets/."
        raise WorkspaceError(f"--preset {preset}: no such preset.{hint}")
    return known[preset].read_text(encoding="utf-8")


@contextmanager
def _held(checkout: Path, name: str) -> Iterator[None]:
    """Hold a run's lock; the system releases it when the process ends, however it ends."""
    path = checkout / ".rlpipe" / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            where = "the checkout" if name == _CHECKOUT else f"runs/{name}"
            raise WorkspaceError(
                f"{where} is in use by another run. Wait for it, or give this one its own name: --name NAME."
            ) from None
        yield


@contextmanager
def _worktree(checkout: Path, name: str, params: str) -> Iterator[Path]:
    """The workspace `runs/<name>/` with this text as its params.yaml, held."""
    root = checkout / "runs" / name
    with _held(checkout, name):
        _refresh(checkout, root)
        _share_cache(checkout, root)
        _fetch_inputs(root)
        (root / "params.yaml").write_text(_with_absolute_paths(params, checkout, root), encoding="utf-8")
        yield root


def _refresh(checkout: Path, root: Path) -> None:
    """Make `root` a worktree with the checkout's commit and its uncommitted tracked changes."""
    if _git(checkout, "rev-parse", "--verify", "--quiet", "HEAD", check=False) == b"":
        raise WorkspaceError(f"{checkout}: nothing is committed, and a workspace starts from a commit. Commit once.")
    head = _git(checkout, "rev-parse", "HEAD").decode().strip()
    changes = _git(checkout, "diff", "HEAD", *_PLAIN_DIFF)
    if (root / ".git").is_file():
        _git(root, "reset", "--hard", "--quiet", head)
        _git(root, "clean", "-fd", "--quiet")
    elif root.exists() and any(root.iterdir()):
        raise WorkspaceError(f"{root}: the folder exists and is no workspace. Remove it or choose another --name.")
    else:
        _git(checkout, "worktree", "prune")
        _git(checkout, "worktree", "add", "--detach", "--quiet", str(root), head)
    if changes:
        _git(root, "apply", "--whitespace=nowarn", stdin=changes)
    strays = _git(checkout, "ls-files", "--others", "--exclude-standard").decode().splitlines()
    if strays:
        _log.warning("Not in the run, since git does not track them (`git add` them): %s", ", ".join(strays))


def _share_cache(checkout: Path, root: Path) -> None:
    """Point the workspace's DVC at the checkout's cache and at the remotes that the checkout sees."""
    from dvc.config import Config, merge

    source = Config(str(checkout / ".dvc"))
    seen = source.read()
    local_file = root / ".dvc" / "config.local"
    local_file.unlink(missing_ok=True)
    with Config(str(root / ".dvc")).edit("local") as local:
        merge(local, source.read("local"))
        local["cache"]["dir"] = str(seen["cache"].get("dir") or checkout / ".dvc" / "cache")
        for name, remote in seen["remote"].items():
            # str() makes a path absolute for good: DVC would write its own relative-path type relative again.
            local["remote"].setdefault(name, {})["url"] = str(remote["url"])


def _fetch_inputs(root: Path) -> None:
    """Check out the data that `.dvc` files track: git has only their hashes."""
    inputs = _git(root, "ls-files", "--", "*.dvc").decode().splitlines()
    if inputs:
        _dvc(root, "checkout", *inputs)


def _with_absolute_paths(text: str, checkout: Path, root: Path) -> str:
    """`text` of a params.yaml in which paths to files that only the checkout can see are absolute."""
    params: Any = YAML(typ="safe").load(text)
    assignments = []
    for dotted in _PATH_KEYS:
        section, _, key = dotted.partition(".")
        written = params[section][key]
        if written is None or Path(written).is_absolute():
            continue
        target = Path(os.path.normpath(checkout / written))
        inside = target.is_relative_to(checkout)
        if target.exists() and not (inside and (root / written).exists()):
            assignments.append(f"{dotted}={json.dumps(str(target))}")
    return edited(text, None, assignments) if assignments else text


def _git(where: Path, *arguments: str, stdin: bytes | None = None, check: bool = True) -> bytes:
    """Raises: WorkspaceError with git's message, unless `check` is off."""
    environ = {name: value for name, value in os.environ.items() if name not in _GIT_CONTEXT}
    done = subprocess.run(
        ["git", "-C", str(where), *arguments], input=stdin, capture_output=True, env=environ, check=False
    )
    if check and done.returncode != 0:
        raise WorkspaceError(f"git {arguments[0]} in {where}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _dvc(where: Path, *arguments: str) -> str:
    """Raises: WorkspaceError with DVC's message."""
    command = [sys.executable, "-P", "-m", "dvc", "--wait-for-lock", *arguments]
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WorkspaceError(f"dvc {arguments[0]} in {where}: {done.stderr.strip()}")
    return done.stdout

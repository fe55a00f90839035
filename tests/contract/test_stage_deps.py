"""dvc.yaml names every module that can change a stage's outputs, or a change of the math goes unnoticed."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from rlpipe.algos.sections import sectionable
from rlpipe.stages.runner import STAGES

ROOT = Path(__file__).resolve().parents[2]
# What cannot change an output: records and errors have no behaviour, parameters arrive as values that DVC tracks,
# trackers are contractually without influence, base and runner only hand things over, what transformers leaves alone
# is what nothing here calls, and the table of algorithms does nothing but name them: a policy depends on its own
# algorithm's file alone.
EXEMPT = (
    "rlpipe/__init__.py",
    "rlpipe/types.py",
    "rlpipe/errors.py",
    "rlpipe/environment.py",
    "rlpipe/huggingface.py",
    "rlpipe/config",
    "rlpipe/tracking",
    "rlpipe/stages/__init__.py",
    "rlpipe/stages/base.py",
    "rlpipe/algos/__init__.py",
)

ALGORITHM = "rlpipe/algos/${item.algorithm}.py"


def _file(module):
    path = ROOT / module.replace(".", "/")
    package, plain = path / "__init__.py", path.with_suffix(".py")
    return package if package.exists() else plain if plain.exists() else None


def _imports(path):
    """rlpipe files that `path` imports at any depth of its code, `TYPE_CHECKING` blocks left out."""
    tree = ast.parse(path.read_text())
    skipped = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    names = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {file for name in names if name.startswith("rlpipe") and (file := _file(name))}


def _closure(start):
    seen, queue = set(), [start]
    while queue:
        path = queue.pop()
        if path in seen or _under(path, EXEMPT):
            continue
        seen.add(path)
        queue += _imports(path)
    return seen


def _under(path, names):
    relative = path.relative_to(ROOT).as_posix()
    return any(relative == name or relative.startswith(f"{name}/") for name in names)


def _deps(stage):
    definition = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]
    deps = definition.get("do", definition)["deps"]
    return [dep for dep in deps if dep.startswith("rlpipe/") and dep != ALGORITHM]


@pytest.mark.parametrize("stage", STAGES)
def test_deps_cover_the_stages_imports(stage):
    missing = [
        path.relative_to(ROOT).as_posix()
        for path in _closure(ROOT / f"rlpipe/stages/{stage}.py")
        if not _under(path, _deps(stage))
    ]
    assert not missing, f"add to the deps of {stage} in dvc.yaml: {sorted(missing)}"


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_nothing_that_the_stage_does_not_use(stage):
    used = _closure(ROOT / f"rlpipe/stages/{stage}.py")
    idle = [dep for dep in _deps(stage) if not any(_under(path, [dep]) for path in used)]
    assert not idle, f"remove from the deps of {stage} in dvc.yaml: {idle}"


@pytest.mark.parametrize("name", sectionable())
def test_a_policy_depends_on_its_own_algorithms_file(name):
    # So a new algorithm reruns no other one.
    definition = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["policy"]["do"]
    assert ALGORITHM in definition["deps"]
    own = ROOT / f"rlpipe/algos/{name}.py"
    missing = [path for path in _closure(own) - {own} if not _under(path, _deps("policy"))]
    assert not missing

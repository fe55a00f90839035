"""Break rlpipe/ops one small way at a time and see that a test fails each time: `make mutation`.

A mutant is one change of the syntax tree of one module: a sign, a factor, a comparison, a constant, a dropped mask,
clamp or detach, two swapped arguments. For each, a child process is forked that has torch and pytest imported but not
rlpipe; it puts the changed module in the place of the real one and runs the tests of ops: first the module's own file,
then the others and the contract tests, up to the first failure. Nothing on disk is changed.

docs/mutation.md says why not one of the general tools, and explains each survivor; one that is not named there makes
the run fail.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPS, TESTS = ROOT / "rlpipe" / "ops", ROOT / "tests" / "unit" / "ops"
EXPLAINED = ROOT / "docs" / "mutation.md"
TIMEOUT_S = 60  # a child that takes this long is in a loop without end: killed

OPERATORS = {
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.Pow: [ast.Mult],
    ast.BitAnd: [ast.BitOr], ast.Lt: [ast.LtE, ast.Gt], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.Lt],
    ast.GtE: [ast.Gt, ast.Lt], ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq],
}  # fmt: skip
NAMES = {
    "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "exp": "expm1", "expm1": "exp",
    "log1p": "log", "sum": "mean", "zeros_like": "ones_like",
}  # fmt: skip
DROPPED_METHODS = {"clamp", "detach", "square", "sqrt", "exp", "log", "flip", "unsqueeze"}
DROPPED_FUNCTIONS = {"zero_outside", "reversed", "last_true", "masked_mean"}
NEGATED = {"logsigmoid", "sigmoid"}
SWAPPED = {"exact", "_pair_loss", "_logistic"}
WORDS = {"needed": "unread", "welcome": "unread"}


@dataclass(frozen=True)
class Mutant:
    """One change: `name` says where and what, `tree` is the changed module."""

    module: str
    name: str
    tree: ast.Module


def mutants(module: str) -> Iterator[Mutant]:
    """Every mutant of `rlpipe/ops/<module>.py`."""
    tree = ast.parse((OPS / f"{module}.py").read_text(encoding="utf-8"))
    seen: dict[str, int] = {}
    for index, (node, function) in enumerate(_sites(tree)):
        for number, new in enumerate(_alternatives(node)):
            changed = copy.deepcopy(tree)
            target = [site for site, _ in _sites(changed)][index]
            replacement = list(_alternatives(target))[number]
            changed = ast.fix_missing_locations(_Replace(target, replacement).visit(changed))
            name = f"{module}.{function}: {_text(node)} -> {_text(new)}"
            seen[name] = seen.get(name, 0) + 1
            again = f" (no. {seen[name]})" if seen[name] > 1 else ""
            yield Mutant(module, name + again, changed)


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST | None) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST | None:
        return self.new if node is self.old else self.generic_visit(node)


def _text(node: ast.AST | None) -> str:
    return "nothing" if node is None else " ".join(ast.unparse(node).split())


def _sites(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """The nodes of a module's functions, each with its function's name; no annotations, no docstrings."""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef):
            yield from ((node, statement.name) for node in _below(statement))
        elif isinstance(statement, ast.Assign):
            yield from ((node, "module") for node in _below(statement.value))


def _below(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "ctx"):
            continue
        for child in value if isinstance(value, list) else [value]:
            is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and not is_docstring:
                yield from _below(child)


def _alternatives(node: ast.AST) -> Iterator[ast.AST | None]:
    """What may stand in the place of `node`."""
    if isinstance(node, ast.BinOp):
        for operator in OPERATORS.get(type(node.op), []):
            yield ast.BinOp(node.left, operator(), node.right)
        if isinstance(node.op, ast.BitAnd | ast.Pow | ast.Mult):
            yield node.left
            yield node.right
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield node.operand
    elif isinstance(node, ast.Compare):
        for operator in OPERATORS.get(type(node.ops[0]), []):
            yield ast.Compare(node.left, [operator()], node.comparators)
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.Constant):
        yield from map(ast.Constant, _constants(node.value))
    elif isinstance(node, ast.Expr):
        yield ast.Pass()
    elif isinstance(node, ast.Call):
        yield from _calls(node)


def _constants(value: object) -> list[object]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, float):
        return [value + 1, value * 2]
    return [WORDS[value]] if isinstance(value, str) and value in WORDS else []


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    is_method = isinstance(node.func, ast.Attribute)
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in NAMES and is_method:
        yield ast.Call(ast.Attribute(node.func.value, NAMES[name], ast.Load()), node.args, node.keywords)
    elif name in NAMES:
        yield ast.Call(ast.Name(NAMES[name], ast.Load()), node.args, node.keywords)
    if name in DROPPED_METHODS and is_method and getattr(node.func.value, "id", "") != "torch":
        yield node.func.value
    if name in DROPPED_FUNCTIONS:
        yield node.args[0]
    if name == "masked_mean":
        yield ast.Call(ast.Attribute(node.args[0], "mean", ast.Load()), [], [])
    if name == "where":
        yield node.args[1]
        yield node.args[2]
    if name in NEGATED:
        yield ast.Call(node.func, [ast.UnaryOp(ast.USub(), node.args[0])], [])
    if name in SWAPPED:
        yield ast.Call(node.func, [*node.args[:-2], node.args[-1], node.args[-2]], node.keywords)
    if name == "check_masked":
        for gone in node.keywords:
            yield ast.Call(node.func, node.args, [keyword for keyword in node.keywords if keyword is not gone])


class _Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the mutant in the place of its module."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, fullname, path, target=None):
        if fullname != f"rlpipe.ops.{self._mutant.module}":
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(OPS / f"{self._mutant.module}.py"))

    def exec_module(self, module) -> None:
        exec(compile(self._mutant.tree, module.__spec__.origin, "exec"), module.__dict__)


def survives(mutant: Mutant) -> bool:
    """True if no test fails with the mutant in place."""
    child = os.fork()
    if child == 0:
        os._exit(_tested(mutant))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _tested(mutant: Mutant | None) -> int:
    """In the child: 0 if all tests pass, by a signal or another number if not."""
    import pytest

    signal.alarm(TIMEOUT_S)
    if mutant is not None:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        sys.meta_path.insert(0, _Loader(mutant))
    own = TESTS / f"test_ops_{mutant.module}.py" if mutant is not None else None
    # Not the parity tests: importing trl takes longer than all others together.
    others = [path for path in sorted(TESTS.glob("test_*.py")) if path not in (own, TESTS / "test_trl_parity.py")]
    for paths in ([own] if own else [], [*others, ROOT / "tests" / "contract" / "test_algos.py"]):
        options = ["-x", "-q", "--tb=no", "-o", "addopts=", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
        if paths and (failed := pytest.main([*options, *map(str, paths)])):
            return int(failed)
    return 0


def main() -> int:
    modules = sorted(path.stem for path in OPS.glob("*.py") if path.stem != "__init__")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", choices=[*modules, []], help="default: all")
    chosen = parser.parse_args().modules or modules

    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    # No accelerator: its threads do not survive a fork.
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "CUDA_VISIBLE_DEVICES": ""}
    # Imported before the forks, for all of them; the first comparison imports hundreds of modules more.
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import ruamel.yaml  # noqa: F401
    import torch

    torch.set_num_threads(1)
    torch.testing.assert_close(torch.zeros(1), torch.zeros(1))
    gc.freeze()  # or each child's garbage collector would walk, and so copy, all that was imported
    assert not any(name.startswith("rlpipe") for name in sys.modules)
    child = os.fork()
    if child == 0:
        os._exit(_tested(None))
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        print("The tests fail on the code as it is: mend that first.")
        return 1

    explained, unexplained, started = EXPLAINED.read_text(encoding="utf-8"), 0, time.monotonic()
    total = alive = 0
    for module in chosen:
        killed = 0
        for mutant in mutants(module):
            total += 1
            if not survives(mutant):
                killed += 1
                continue
            is_known = f"`{mutant.name}`" in explained
            alive, unexplained = alive + 1, unexplained + (not is_known)
            print(f"{'survived, explained' if is_known else 'SURVIVED'}: {mutant.name}", flush=True)
        print(f"{module}: {killed} killed", flush=True)
    print(f"{total} mutants, {total - alive} killed, {alive} survived, {unexplained} of them unexplained; "
          f"{time.monotonic() - started:.0f} s")  # fmt: skip
    return int(unexplained > 0)


if __name__ == "__main__":
    sys.exit(main())

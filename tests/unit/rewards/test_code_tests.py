"""From a row and a completion to a program with its tests, and its score."""

from __future__ import annotations

import ast
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlpipe.errors import ConfigError
from rlpipe.rewards.base import Missing
from rlpipe.rewards.code_tests import code_tests, job, judge, program
from rlpipe.rewards.options import bound
from rlpipe.sandbox import CallTests, Limits, OutputTests, SandboxError, isolation
from rlpipe.types import Task

HUMANEVAL = Path(__file__).parents[3] / "../shared/realdata/humaneval/HumanEval.jsonl.gz"

ADD = Task(
    "add",
    'def add(a: int, b: int) -> int:\n    """The sum of a and b."""\n',
    "",
    {"test": "def check(candidate):\n    assert candidate(1, 2) == 3\n", "entry_point": "add"},
)
MBPP = Task("mbpp", "Write a function to add two numbers.", "", {"test_list": ["assert add(1, 2) == 3"]})
DOUBLE = Task("double", "Read a number, print its double.", "", {"stdin": ["1\n", "4\n"], "stdout": ["2\n", "8\n"]})

# Rows like HumanEval's, ours: a plain one, one whose test uses the prompt's helper and chance, one with floats.
SAMPLE = [
    {
        "task_id": "sample/0",
        "prompt": "from typing import List\n\n\ndef largest(numbers: List[int]) -> int:\n"
        '    """The largest number, 0 of none.\n    >>> largest([1, 3, 2])\n    3\n    """\n',
        "canonical_solution": "    return max(numbers, default=0)\n",
        "test": "def check(candidate):\n    assert candidate([1, 3, 2]) == 3\n    assert candidate([]) == 0\n",
        "entry_point": "largest",
    },
    {
        "task_id": "sample/1",
        "prompt": "def shift(text: str) -> str:\n    return text[1:] + text[:1]\n\n\ndef unshift(text: str) -> str:\n"
        '    """The text that shift made this one of."""\n',
        "canonical_solution": "    return text[-1:] + text[:-1]\n",
        "test": "def check(candidate):\n    from random import choice\n    for _ in range(20):\n"
        "        text = ''.join(choice('abc') for _ in range(5))\n        assert candidate(shift(text)) == text\n",
        "entry_point": "unshift",
    },
    {
        "task_id": "sample/2",
        "prompt": 'def root(x: float) -> float:\n    """The square root of x."""\n',
        "canonical_solution": "    import math\n\n    def f():\n        return math.sqrt(x)\n\n    return f()\n",
        "test": "def check(candidate):\n    assert abs(candidate(2.0) ** 2 - 2) < 1e-9\n    assert candidate(4) == 2\n",
        "entry_point": "root",
    },
]


@pytest.fixture(scope="session")
def _isolated() -> None:
    try:
        isolation()
    except SandboxError as error:
        if os.environ.get("RLPIPE_SANDBOX") == "required":
            raise
        pytest.skip(f"no program can be isolated here: {error}")


def task_of(row: dict[str, Any]) -> Task:
    columns = {name: value for name, value in row.items() if name not in ("task_id", "prompt")}
    return Task(row["task_id"], row["prompt"], "", columns)


def broken(row: dict[str, Any]) -> str:
    """The whole solution, where every `return x` of the function asked for is `return [x]`."""
    tree = ast.parse(row["prompt"] + row["canonical_solution"])
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == row["entry_point"]]
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Return):
            node.value = ast.List([node.value or ast.Constant(None)], ast.Load())
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)
    return ast.unparse(ast.fix_missing_locations(tree))


# ---- the program in a completion ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ("    return a + b\n", "    return a + b\n"),
        ("Here:\n```python\ndef add(a, b):\n    return a + b\n```\nDone.", "def add(a, b):\n    return a + b\n"),
        ("```\ndef add(): pass\n```", "def add(): pass\n"),
        ("```python\nx = 1", "x = 1"),  # cut off
        # The last block that defines what is asked for, not a guess before it and not the example behind it.
        ("```py\ndef add(): 1\n```\n```python\ndef add(): 2\n```\n```python\nadd()\n```", "def add(): 2\n"),
        ("```bash\npip install x\n```\n```python\nx = 1\n```", "x = 1\n"),
        # The prompt opened the block, the completion closes it and talks on.
        ("def add(): 1\n```\nThis adds.", "def add(): 1\n"),
        ("def add(): 1\n```\nFor example:\n```python\nadd()\n```", "def add(): 1\n"),
    ],
)
def test_the_code_of_a_completion(completion: str, code: str) -> None:
    assert program(completion, ["add"]) == code


def test_a_completion_goes_on_with_the_prompt_or_repeats_it() -> None:
    body = job(ADD, "    return a + b\n")
    assert isinstance(body, CallTests)
    assert body.sources == (ADD.prompt + "    return a + b\n",)
    whole = job(ADD, "def add(a, b):\n    return a + b\n")
    assert isinstance(whole, CallTests)
    assert whole.sources == (
        ADD.prompt + "\ndef add(a, b):\n    return a + b\n",
        "def add(a, b):\n    return a + b\n",
    )
    assert (whole.functions, whole.preamble) == (("add",), ADD.prompt)


def test_a_prompt_in_prose_holds_its_code_in_a_fence() -> None:
    prompt = f"Complete this function.\n```python\n{ADD.prompt}```\n"
    made = job(Task("x", prompt, "", ADD.columns), "    return a + b\n")
    assert isinstance(made, CallTests)
    assert made.preamble == ADD.prompt
    prose = job(Task("x", "Add two numbers.", "", ADD.columns), "def add(a, b): return a + b")
    assert isinstance(prose, CallTests)
    assert (prose.preamble, prose.sources[-1]) == ("", "def add(a, b): return a + b")


def test_only_the_reference_solution_may_name_a_built_in() -> None:
    made = job(Task("x", "", "", {**MBPP.columns, "code": "def sum(a):\n  pass\ndef g(): pass"}), "x = 1")
    assert isinstance(made, CallTests)
    assert made.functions == ("sum", "g")


def test_setup_of_the_dataset_stands_before_its_tests() -> None:
    columns = {**MBPP.columns, "test_imports": ["import math"], "test_setup_code": "x = 1"}
    made = job(Task("x", "", "", columns), "x = 1")
    assert isinstance(made, CallTests)
    assert made.setup == "import math\nx = 1"


def test_one_case_or_lists_of_them() -> None:
    one = job(Task("x", "", "", {"stdin": "1", "stdout": "2"}), "x")
    assert isinstance(one, OutputTests)
    assert one.cases == (("1", "2"),)
    assert job(DOUBLE, "x") == OutputTests("x", (("1\n", "2\n"), ("4\n", "8\n")))
    assert job(Task("x", "", "", {"stdout": "2"}), "x") == OutputTests("x", (("", "2"),))


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"test": "def check(c): pass"},
        {"test": 1, "entry_point": "f"},
        {"test": "", "entry_point": "f("},
        {"test_list": []},
        {"test_list": "assert f(1)"},
        {"test_list": [1]},
        {"test_list": ["assert f(1)"], "test_imports": "import math"},
        {"stdin": ["1"], "stdout": ["1", "2"]},
        {"stdin": [], "stdout": []},
        {"stdin": 1, "stdout": "1"},
    ],
)
def test_a_row_without_tests_that_can_be_run_has_no_score(columns: dict[str, Any]) -> None:
    assert isinstance(job(Task("x", "", "", columns), "x = 1"), Missing)


# ---- scores ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_isolated")
def test_scores_are_in_order_and_a_fault_of_the_data_is_missing() -> None:
    untestable = Task("x", "", "", {"test_list": ["assert apply(len) == 1"]})
    tasks = [ADD, ADD, MBPP, DOUBLE, DOUBLE, Task("x", "", "", {}), untestable, MBPP]
    completions = [
        "    return a + b\n",
        "    return a - b\n",
        "```python\ndef add(a, b):\n    return a + b\n```",
        "print(2 * int(input()))",
        "print(2)",  # right for the first of the two inputs
        "anything",
        "def apply(f): return 1",
        "def add(a, b:",
    ]
    scores = code_tests(tasks, completions, workers=2)
    assert scores[:5] == [1.0, 0.0, 1.0, 1.0, 0.0]
    assert [isinstance(score, Missing) for score in scores[5:7]] == [True, True]
    assert "apply() cannot be sent" in scores[6].reason
    assert scores[7] == 0.0


@pytest.mark.usefixtures("_isolated")
def test_no_rows_no_scores() -> None:
    assert code_tests([], []) == []


def test_unsafe_is_said_with_every_batch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there is no bwrap, the default refuses; what `unsafe` allows instead is in the log at its normal level."""
    isolation.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    try:
        with pytest.raises(SandboxError, match="bwrap is not installed"):
            code_tests([MBPP], ["def add(a, b): return a + b"])
        assert code_tests([MBPP], ["def add(a, b): return a + b"], unsafe=True) == [1.0]
    finally:
        isolation.cache_clear()
    assert "isolation process: bwrap is not installed" in caplog.text


def test_options_are_checked_when_a_run_begins() -> None:
    assert bound(code_tests, {"workers": 2, "wall_s": 5.0, "unsafe": False}, "policies.x.reward.code_tests")
    for wrong in ({"workers": 0}, {"unsafe": "yes"}, {"isolation": "none"}):
        with pytest.raises(ConfigError, match=r"policies\.x\.reward\.code_tests\."):
            bound(code_tests, wrong, "policies.x.reward.code_tests")


@pytest.mark.usefixtures("_isolated")
def test_the_sample_of_our_own() -> None:
    tasks = [task_of(row) for row in SAMPLE]
    assert code_tests(tasks, [row["canonical_solution"] for row in SAMPLE]) == [1.0, 1.0, 1.0]
    assert code_tests(tasks, [broken(row) for row in SAMPLE]) == [0.0, 0.0, 0.0]


@pytest.mark.slow
@pytest.mark.usefixtures("_isolated")
def test_all_164_solutions_of_humaneval_and_none_of_them_with_a_broken_return(
    record_property: Callable[[str, object], None],
) -> None:
    if not HUMANEVAL.exists():
        pytest.skip("../shared/realdata/humaneval is not beside this checkout")
    with gzip.open(HUMANEVAL, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    tasks = [task_of(row) for row in rows]
    right = [job(task, row["canonical_solution"]) for task, row in zip(tasks, rows, strict=True)]
    assert len(right) == 164
    batch = judge([made for made in right if not isinstance(made, Missing)], Limits())
    record_property("programs_per_s", batch.programs_per_s)
    assert [(row["task_id"], v) for row, v in zip(rows, batch.verdicts, strict=True) if v.passed is not True] == []
    wrong = code_tests(tasks, [broken(row) for row in rows])
    assert [(row["task_id"], score) for row, score in zip(rows, wrong, strict=True) if score != 0.0] == []

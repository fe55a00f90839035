"""What passes, what fails, and what nobody can know; programs here are plain ones. tests/faults has the others."""

from __future__ import annotations

import textwrap
from dataclasses import replace

import pytest

from rlpipe.sandbox import CallTests, Isolation, Job, Limits, OutputTests, Verdict, judge_all
from rlpipe.sandbox.supervise import normalised

LIMITS = Limits(cpu_s=2, wall_s=5.0)


@pytest.fixture
def verdict(isolated: Isolation):
    """The verdict on one job."""

    def judge(job: Job, limits: Limits = LIMITS) -> Verdict:
        return judge_all([job], isolated, limits, workers=1).verdicts[0]

    return judge


def asserts(source: str, *tests: str, **more: str) -> CallTests:
    return CallTests((textwrap.dedent(source),), tests, **more)


def check(source: str, test: str, name: str = "f", preamble: str = "") -> CallTests:
    return CallTests((textwrap.dedent(source),), (textwrap.dedent(test),), (name,), textwrap.dedent(preamble))


# ---- values ---------------------------------------------------------------------------------------------


def test_every_plain_type_goes_in_and_comes_out(verdict) -> None:
    values = [None, True, -7, 0.1, 2 - 1j, "ä\ud800", b"\x00", [1, [2]], (1,), {1, 2}, frozenset({3}), {"a": {1: 2}}]
    tests = [
        f"assert f({value!r}) == {value!r} and type(f({value!r})) is {type(value).__name__}" for value in values[1:]
    ]
    judged = verdict(asserts("def f(x): return x", "assert f(None) is None", *tests))
    assert (judged.passed, judged.calls) == (True, 2 * len(values) - 1)


def test_keywords_and_several_functions_and_state_between_calls(verdict) -> None:
    source = """
    seen = []
    def put(x, *, times=1):
        seen.extend([x] * times)
    def count():
        return len(seen)
    """
    assert verdict(asserts(source, "put(1)\nput(2, times=3)", "assert count() == 4")).passed


def test_a_counter_is_the_dict_that_it_holds(verdict) -> None:
    source = "import collections\ndef f(x): return collections.Counter(x)"
    assert verdict(asserts(source, "assert f('aab') == {'a': 2, 'b': 1}")).passed


def test_a_class_of_its_own_is_not_plain(verdict) -> None:
    judged = verdict(asserts("class Pair:\n  def __init__(s, a, b): pass", "assert Pair(1, 2)"))
    assert (judged.passed, judged.reason) == (
        False,
        "it returned something else than plain data: a Pair is no plain value",
    )


def test_arguments_are_copies(verdict) -> None:
    """A limit of the design: a test that looks for a change in its argument sees none."""
    judged = verdict(asserts("def f(x): x.append(1)", "x = []\nf(x)\nassert x == [1]"))
    assert judged.passed is False


# ---- exceptions -----------------------------------------------------------------------------------------


def test_a_test_may_expect_an_exception(verdict) -> None:
    test = """
    def check(candidate):
        try:
            candidate(0)
        except ZeroDivisionError as error:
            assert "division" in str(error)
        else:
            assert False
    """
    assert verdict(check("def f(x): return 1 / x", test)).passed
    assert verdict(check("def f(x): return 1", test)).passed is False
    assert verdict(check("class ZeroDivisionError(Exception): pass\ndef f(x): raise ValueError", test)).passed is False


def test_an_exception_of_its_own_class_is_no_built_in_one(verdict) -> None:
    test = "try:\n  f()\nexcept ValueError:\n  pass"
    assert verdict(asserts("def f(): raise ValueError", test)).passed
    judged = verdict(asserts("class Mine(ValueError): pass\ndef f(): raise Mine('x')", test))
    assert (judged.passed, judged.reason) == (False, "line 2 of the tests: CandidateError Mine: x")


# ---- whose fault ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("test", "why"),
    [
        ("assert 1 == 1", "call nothing"),
        ("assert f(print) == 1", "an argument of f() cannot be sent: a builtin_function_or_method"),
        ("assert f(1) ==", "SyntaxError"),
        ("import numpy\nassert f(1) == 1", "No module named 'numpy'"),
        ("while True: pass", "before the first call"),
        ("import os; os._exit(3)", "before the first call"),
    ],
)
def test_faults_of_the_tests_are_nobodys_score(verdict, test: str, why: str) -> None:
    judged = verdict(asserts("def f(x): return 1", test), replace(LIMITS, cpu_s=1))
    assert judged.passed is None
    assert why in judged.reason


@pytest.mark.parametrize(
    ("test", "why"),
    [
        ("for _ in range(f(1)): pass\nwhile f(1): pass", "out of time"),
        ("x = [f(1)] * 10 ** 12", "MemoryError"),
        ("f(1)\nimport os; os._exit(3)", "in the tests: the process died"),
        ("f('x' * f(1) * (5 << 20))", "an argument of f() cannot be sent: more than 4194304 bytes"),
    ],
)
def test_after_the_first_call_it_may_be_the_programs_doing(verdict, test: str, why: str) -> None:
    judged = verdict(asserts("def f(x): return 1", test), replace(LIMITS, wall_s=1.0))
    assert judged.passed is False
    assert why in judged.reason


def test_the_evaluator_that_a_job_broke_is_not_asked_again(isolated: Isolation) -> None:
    """One worker, so one evaluator: a job whose tests die, one that hangs it, and one that is answered rightly."""
    right = asserts("def f(x): return x", "assert f(1) == 1")
    jobs = [
        asserts("def f(x): return 1", "f(1)\nimport os; os._exit(3)"),
        right,
        asserts("import os\ndef f(x): os._exit(0)", "f(1)"),
        right,
        asserts("def f(x): return 1", "while f(1): pass"),
        right,
    ]
    judged = judge_all(jobs, isolated, replace(LIMITS, wall_s=1.0), workers=1)
    assert [verdict.passed for verdict in judged.verdicts] == [False, True] * 3
    assert judged.programs_per_s == pytest.approx(6 / judged.wall_s)


def test_one_test_does_not_see_what_another_left_behind(isolated: Isolation) -> None:
    """The names of one job, and what it did to a module, are gone for the next one."""
    first = asserts("def f(x): return x", "import math\nmath.pi = 3\nleft = 1\nassert f(1) == 1")
    second = asserts("def f(x): return x", "import math\nassert math.pi > 3.1 and 'left' not in globals()\nf(1)")
    assert [v.passed for v in judge_all([first, second], isolated, LIMITS, workers=1).verdicts] == [True, True]


# ---- names ----------------------------------------------------------------------------------------------


def test_named_functions_are_the_only_ones_of_the_program(verdict) -> None:
    """`close` would decide about itself. With `f` alone named, the tests do not know it, and nobody can say."""
    source, test = "def f(x): return 0\ndef close(a, b): return True", "assert close(f(1), 1)"
    assert verdict(CallTests((source,), (test,))).passed is True
    assert verdict(CallTests((source,), (test,), ("f",))).passed is None


def test_no_built_in_is_the_programs_unless_the_dataset_says_so(verdict) -> None:
    source = "def f(x): return [0]\ndef len(x): return 7\ndef sum(a, b): return a + b"
    assert verdict(asserts(source, "assert len(f(1)) == 7")).passed is False
    assert verdict(CallTests((source,), ("assert sum(10, 5) == 15",), ("sum",))).passed is True


def test_what_the_prompt_defines_is_the_datasets(verdict) -> None:
    """The prompt's `double` is what the test uses, and the program's own is not; its `f` is the program's."""
    prompt = """
    def double(x):
        return 2 * x

    def f(x):
        '''Half of x.'''
    """
    test = "def check(candidate):\n  assert candidate(double(3)) == 3 and f(8) == 4"
    assert verdict(check("def f(x): return x // 2", test, preamble=prompt)).passed
    assert verdict(check("def double(x): return 3\ndef f(x): return x", test, preamble=prompt)).passed is False


def test_a_module_that_the_tests_forgot_to_import(verdict) -> None:
    assert verdict(asserts("def f(x): return 0.1 + 0.2", "assert math.isclose(f(1), 0.3)")).passed
    assert verdict(CallTests(("def f(x): return .3",), ("assert math.isclose(f(1), 0.3)",), ("f",))).passed


# ---- same inputs, same outcome ---------------------------------------------------------------------------


def test_chance_and_hashes_are_the_same_every_time(isolated: Isolation) -> None:
    """Random numbers of the program and of the tests, and the order of a set, in two runs."""
    source = "import random\ndef f(): return [random.random() for _ in range(3)], list({'a', 'b', 'c', 'd', 'e'})"
    outputs = set()
    for _ in range(2):
        job = asserts(source, "import random\nassert f() == [random.random(), 1, 2], (f(), random.random())")
        outputs.add(judge_all([job], isolated, LIMITS, workers=1).verdicts[0].reason)
    assert len(outputs) == 1
    assert "AssertionError ((" in outputs.pop()


# ---- whole programs -------------------------------------------------------------------------------------


def test_each_test_of_a_program_is_a_run_of_its_own(verdict) -> None:
    source = "print(sum(int(line) for line in __import__('sys').stdin))"
    judged = verdict(OutputTests(source, (("1\n2\n", "3\n"), ("", "0"))))
    assert (judged.passed, judged.calls) == (True, 2)
    judged = verdict(OutputTests(source, (("1\n2\n", "3\n"), ("1", "2"), ("", "0"))))
    assert (judged.passed, judged.calls, judged.reason) == (False, 1, "test 2 of 3: another output than expected")


def test_large_input_and_output_pass_each_other(verdict) -> None:
    """1 MB each way is more than both pipes hold, and the program writes while it reads."""
    text = "".join(f"{number:07d}\n" for number in range(1 << 17))
    source = "import sys\nfor line in sys.stdin: print(line, end='')"
    assert verdict(OutputTests(source, ((text, text),))).passed


def test_a_program_need_not_read_its_input(verdict) -> None:
    assert verdict(OutputTests("print(1)", (("x" * (1 << 20), "1"),))).passed


def test_the_right_words_and_a_wrong_end_are_no_pass(verdict) -> None:
    judged = verdict(OutputTests("print(1, flush=True)\nraise ValueError", (("", "1"),)))
    assert (judged.passed, judged.reason) == (False, "test 1 of 1: exit status 1")
    judged = verdict(OutputTests("import os\nprint(1, flush=True)\nos.abort()", (("", "1"),)))
    assert (judged.passed, judged.reason) == (False, "test 1 of 1: exit status 134")  # 128 + SIGABRT
    assert verdict(OutputTests("import sys\nprint(1)\nsys.exit(0)", (("", "1"),))).passed


def test_a_program_is_main(verdict) -> None:
    source = """
    import dataclasses
    @dataclasses.dataclass
    class Point:
        x: int
    if __name__ == "__main__":
        print(Point(int(input())))
    """
    assert verdict(OutputTests(textwrap.dedent(source), (("3", "Point(x=3)"),))).passed


def test_white_space_at_ends_of_lines_does_not_count() -> None:
    assert normalised("a \r\nb\t\n\n") == normalised("a\nb")
    assert normalised("a  b") != normalised("a b")
    assert normalised("\na") != normalised("a")


def test_no_tests_no_verdict(verdict) -> None:
    assert verdict(OutputTests("print(1)", ())).passed is None
    assert verdict(CallTests(("x = 1",), ())).passed is None


def test_no_jobs() -> None:
    assert judge_all([], Isolation("bubblewrap"), LIMITS, workers=2).verdicts == ()


def test_many_jobs_keep_their_order(isolated: Isolation) -> None:
    jobs = [asserts(f"def f(): return {number}", "assert f() % 3 == 0") for number in range(12)]
    verdicts = judge_all(jobs, isolated, LIMITS, workers=4).verdicts
    assert [verdict.passed for verdict in verdicts] == [number % 3 == 0 for number in range(12)]

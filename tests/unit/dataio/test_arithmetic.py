"""The generated task: which chains there are, and what a wrong demonstration looks like."""

from __future__ import annotations

import re

import pytest

from rlpipe.config.schema import Data
from rlpipe.dataio.raw import FileTables
from rlpipe.dataio.records import Candidate
from rlpipe.dataio.sources.arithmetic import arithmetic, count_chains, nth_chain, solved, written
from rlpipe.errors import DataError


def generate(data: Data, seed: int = 0, **changes: float) -> list[Candidate]:
    chains = data.arithmetic.model_copy(update=changes)
    return list(arithmetic(data.model_copy(update={"arithmetic": chains}), FileTables(None), seed))  # type: ignore[arg-type]


def records(candidates: list[Candidate], split: str) -> list:
    return [record for row in candidates for name, record in row.uses.items() if name == split]


def test_two_terms_up_to_two_give_seven_chains() -> None:
    # 1+1 1+2 1-1 2+1 2+2 2-1 2-2; 1-2 would be below 0.
    found = [written(nth_chain(index, 2, 2)) for index in range(count_chains(2, 2))]
    assert found == ["1+1", "1+2", "1-1", "2+1", "2+2", "2-1", "2-2"]


def test_no_chain_of_three_terms_is_missing_or_comes_twice() -> None:
    counted = count_chains(3, 4)
    numbered = {written(nth_chain(index, 3, 4)) for index in range(counted)}
    operands, signs = range(1, 5), "+-"
    every = {f"{a}{s}{b}{t}{c}" for a in operands for s in signs for b in operands for t in signs for c in operands}
    legal = {text for text in every if eval(text) >= 0 and eval(re.match(r"\d+.\d+", text)[0]) >= 0}
    assert numbered == legal
    assert counted == len(legal)


def test_gold_response_spells_out_each_partial_result() -> None:
    # 7+12=19, 19-4=15
    chain = ((1, 7), (1, 12), (-1, 4))
    assert solved(chain) == ([19, 15], "<think>7+12=19 19-4=15</think><answer>15</answer>")


def test_a_slip_is_carried_on() -> None:
    # 7+12=19 misread as 18, then 18-4=14: the second step is right by itself.
    chain = ((1, 7), (1, 12), (-1, 4))
    assert solved(chain, 0, -1) == ([18, 14], "<think>7+12=18 18-4=14</think><answer>14</answer>")


def test_answers_are_what_the_expressions_evaluate_to(data: Data) -> None:
    rows = generate(data)
    tasks = records(rows, "tasks") + records(rows, "heldout")
    assert [task.answer for task in tasks] == [str(eval(task.prompt)) for task in tasks]
    assert len(tasks) == 10 + 8


def test_every_prompt_stands_once_in_one_split(data: Data) -> None:
    # Two terms up to 5: 25 sums and 15 differences that are not negative, so 40 chains; 38 are asked for.
    rows = generate(data)
    prompts = [record.prompt for row in rows for record in row.uses.values()]
    assert (len(prompts), len(set(prompts))) == (38, 38)


def test_slip_rate_one_makes_every_demonstration_wrong_and_none_negative(data: Data) -> None:
    shown = records(generate(data, slip_rate=1.0, operands=3, sft_rows=300), "demonstrations")
    for demonstration in shown:
        said = re.search(r"<answer>(-?\d+)</answer>", demonstration.response)[1]
        assert int(said) != eval(demonstration.prompt)
        assert all(int(result) >= 0 for result in re.findall(r"=(-?\d+)", demonstration.response))
    # Near misses: off by 1 or 2, whichever step it happens in.
    off = {abs(int(re.search(r"r>(\d+)", row.response)[1]) - eval(row.prompt)) for row in shown}
    assert off == {1, 2}


def test_short_rate_one_stops_every_demonstration_a_step_early(data: Data) -> None:
    # 3+4-2 is answered as 3+4: one step of two, without a slip.
    shown = records(generate(data, short_rate=1.0, slip_rate=0.0, operands=3, sft_rows=200), "demonstrations")
    for demonstration in shown:
        first = re.match(r"\d+.\d+", demonstration.prompt)[0]
        assert demonstration.response == f"<think>{first}={eval(first)}</think><answer>{eval(first)}</answer>"


def test_without_faults_none_is_wrong(data: Data) -> None:
    shown = records(generate(data, slip_rate=0.0), "demonstrations")
    assert all(f"<answer>{eval(row.prompt)}</answer>" in row.response for row in shown)


def test_the_rates_are_shares_of_the_demonstrations(data: Data) -> None:
    rates = {"short_rate": 0.5, "slip_rate": 0.2}
    shown = records(generate(data, **rates, operands=3, max_operand=12, sft_rows=2000), "demonstrations")
    short = sum(row.response.count("=") == 1 for row in shown) / 2000
    slipped = sum(row.response.count("=") == 2 and f">{eval(row.prompt)}<" not in row.response for row in shown) / 2000
    # 4 standard errors among 2000: 4 * sqrt(0.5 * 0.5 / 2000) = 0.045, 4 * sqrt(0.2 * 0.8 / 2000) = 0.036
    assert short == pytest.approx(0.5, abs=0.045)
    assert slipped == pytest.approx(0.2, abs=0.036)


def test_the_seed_alone_decides(data: Data) -> None:
    assert generate(data, seed=1) == generate(data, seed=1)
    assert generate(data, seed=1) != generate(data, seed=2)


def test_more_rows_than_chains_is_refused_with_both_numbers(data: Data) -> None:
    with pytest.raises(DataError, match=r"= 48, but operands=2 and max_operand=5 give only 40 distinct chains"):
        generate(data, sft_rows=30)

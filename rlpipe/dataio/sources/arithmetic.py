"""Chains of additions and subtractions, such as 7+12-4, with demonstrations of which a share is wrong.

The wrong ones are the headroom: a model that imitates them errs about as often as they do, and only a reward
can tell it which habits to drop. There are two: stopping a step short of the end, and slipping in a step.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

from rlpipe.config.schema import Arithmetic, Data
from rlpipe.dataio.raw import RawRow, Tables
from rlpipe.dataio.records import Candidate, Record, Split
from rlpipe.errors import DataError
from rlpipe.types import Demonstration, Task

# (sign, operand) with sign +1 or -1; the first term's sign is +1.
Term = tuple[int, int]

_SLIPS = (-2, -1, 1, 2)


def arithmetic(data: Data, tables: Tables, seed: int) -> Sequence[Candidate]:  # noqa: ARG001 - a Source
    """Generate `data.arithmetic`: distinct chains, each in one split only. `tables` is not read.

    Prompts are expressions of `operands` terms with operands 1..max_operand and no partial result below 0,
    drawn uniformly without replacement. A demonstration spells out each partial result. With probability
    `short_rate` it stops before the last step and answers the partial result there; with probability `slip_rate`
    one step is off by 1 or 2 and the rest carries the slip on.

    Raises: DataError if the rows asked for are more than the chains there are.
    """
    spec = data.arithmetic
    parts: tuple[tuple[Split, int], ...] = (
        ("demonstrations", spec.sft_rows),
        ("tasks", spec.rl_rows),
        ("heldout", spec.heldout_rows),
    )
    wanted = sum(rows for _, rows in parts)
    space = count_chains(spec.operands, spec.max_operand)
    if wanted > space:
        raise DataError(
            f"data.arithmetic: sft_rows + rl_rows + heldout_rows = {wanted}, but operands={spec.operands} "
            f"and max_operand={spec.max_operand} give only {space} distinct chains, and no prompt may stand "
            "in two splits. Ask for fewer rows, or raise operands or max_operand."
        )
    generator = random.Random(f"arithmetic:{seed}")
    drawn = generator.sample(range(space), wanted)
    chains = [nth_chain(index, spec.operands, spec.max_operand) for index in drawn]
    splits = [split for split, rows in parts for _ in range(rows)]
    return [
        _candidate(RawRow("arithmetic", line, written(chain)), split, chain, spec, generator)
        for line, (split, chain) in enumerate(zip(splits, chains, strict=True), start=1)
    ]


@cache
def count_chains(operands: int, max_operand: int) -> int:
    """How many chains of `operands` terms exist whose partial results are never negative."""
    return sum(_continuations(first, operands - 1, max_operand) for first in range(1, max_operand + 1))


def nth_chain(index: int, operands: int, max_operand: int) -> tuple[Term, ...]:
    """Chain number `index` of `count_chains(...)`, in lexical order: a bijection, so no chain comes twice."""
    chain: list[Term] = []
    value = 0
    for left in range(operands - 1, -1, -1):
        signs = (1, -1) if chain else (1,)
        for term in ((sign, operand) for sign in signs for operand in range(1, max_operand + 1)):
            after = value + term[0] * term[1]
            below = _continuations(after, left, max_operand)
            if index < below:
                break
            index -= below
        chain.append(term)
        value = after
    return tuple(chain)


def written(chain: Sequence[Term]) -> str:
    """The chain as an expression: 7+12-4."""
    first, *rest = chain
    return str(first[1]) + "".join(f"{'+' if sign > 0 else '-'}{operand}" for sign, operand in rest)


def solved(chain: Sequence[Term], slip_at: int | None = None, slip: int = 0) -> tuple[list[int], str]:
    """Partial results, and the response that states them; step `slip_at` is off by `slip`, carried on."""
    value = chain[0][1]
    results, steps = [], []
    for number, (sign, operand) in enumerate(chain[1:]):
        after = value + sign * operand + (slip if number == slip_at else 0)
        steps.append(f"{value}{'+' if sign > 0 else '-'}{operand}={after}")
        results.append(after)
        value = after
    return results, f"<think>{' '.join(steps)}</think><answer>{value}</answer>"


def _candidate(
    row: RawRow, split: Split, chain: tuple[Term, ...], spec: Arithmetic, generator: random.Random
) -> Candidate:
    prompt = written(chain)
    results, response = solved(chain)
    record: Record = Task(row.id, prompt, str(results[-1]))
    if split == "demonstrations":
        fate = generator.random()
        if fate < spec.short_rate:
            response = solved(chain[:-1])[1]
        elif fate < spec.short_rate + spec.slip_rate:
            response = _slipped(chain, generator)
        record = Demonstration(row.id, prompt, response)
    return Candidate(row, {split: record})


def _slipped(chain: tuple[Term, ...], generator: random.Random) -> str:
    """A response with one slip, no partial result below 0. There always is one: upwards."""
    at = generator.randrange(len(chain) - 1)
    possible = [slip for slip in _SLIPS if min(solved(chain, at, slip)[0]) >= 0]
    return solved(chain, at, generator.choice(possible))[1]


@cache
def _continuations(value: int, terms: int, max_operand: int) -> int:
    """Ways to go on from partial result `value` with `terms` more terms. 0 if `value` is already negative."""
    if value < 0:
        return 0
    if terms == 0:
        return 1
    return sum(
        _continuations(value + sign * operand, terms - 1, max_operand)
        for sign in (1, -1)
        for operand in range(1, max_operand + 1)
    )

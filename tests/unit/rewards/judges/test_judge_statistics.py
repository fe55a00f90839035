"""Accuracy, agreement and bias by hand; then of two judges that were recorded, from what they said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlpipe.errors import DataError
from rlpipe.rewards.judges.base import Pair, PairVerdict
from rlpipe.rewards.judges.llmbar import read_pairs, read_verdicts
from rlpipe.rewards.judges.statistics import accuracy, cohen_kappa, consistency, credit, longer_wins
from rlpipe.stats import wilson

LLMBAR = Path(__file__).resolve().parents[5] / "shared" / "realdata" / "llmbar"
recorded = pytest.mark.skipif(
    not LLMBAR.is_dir(), reason="real data absent: ../shared/realdata/llmbar, beside the checkout"
)

ONE, TWO = PairVerdict("first", "first"), PairVerdict("second", "second")
TO_FIRST, TO_SECOND = PairVerdict("first", "second"), PairVerdict("second", "first")
NONE = PairVerdict(None, "first", "first order: timed_out")


def test_ten_pairs_by_hand() -> None:
    # Right: 4 ONE, 2 TWO. Wrong: 1 ONE. Flipped: 2 to the response shown first, 1 to the other. One has no verdict.
    verdicts = [*[ONE] * 5, *[TWO] * 2, *[TO_FIRST] * 2, TO_SECOND, NONE]
    labels: list[Any] = [*["first"] * 4, "second", *["second"] * 2, *["first"] * 4]
    itself, truth = consistency(verdicts), accuracy(verdicts, labels)
    assert itself is not None
    assert truth is not None
    assert (itself.pairs, itself.missing, truth.pairs) == (10, 1, 10)
    assert (itself.agreement, itself.tied) == (0.7, 0.3)
    # Forward: 7 first, 3 second. Backward: 6 first, 4 second. By chance 0.7 * 0.6 + 0.3 * 0.4 = 0.54.
    assert itself.kappa == pytest.approx((0.7 - 0.54) / (1 - 0.54))
    # The one shown first won in 7 of the forward and in 4 of the backward verdicts.
    assert itself.first_shown == pytest.approx(11 / 20)
    assert (itself.flipped, itself.flipped_to_first) == (3, pytest.approx(2 / 3))
    assert itself.agreement_interval == wilson(7, 10)
    assert itself.flipped_to_first_interval == wilson(2, 3)
    assert truth.accuracy == pytest.approx((6 + 3 * 0.5) / 10)
    assert (truth.right, truth.wrong) == (0.6, 0.1)
    assert (truth.right_interval, truth.wrong_interval) == (wilson(6, 10), wilson(1, 10))
    # 7.5 points of 10: from Wilson's lower bound of 7 to its upper bound of 8.
    assert truth.accuracy_interval == (wilson(7, 10)[0], wilson(8, 10)[1])


def test_a_judge_that_always_takes_the_first_is_a_coin_and_shows_its_bias() -> None:
    itself, truth = consistency([TO_FIRST] * 4), accuracy([TO_FIRST] * 4, ["first", "second", "first", "second"])
    assert itself is not None
    assert truth is not None
    assert (truth.accuracy, itself.agreement, itself.tied) == (0.5, 0.0, 1.0)
    assert (itself.first_shown, itself.flipped_to_first) == (1.0, 1.0)
    # One rater says first throughout, the other second: they agree as often as by chance, never.
    assert itself.kappa == 0.0


def test_a_judges_own_tie_is_worth_half_in_its_order() -> None:
    assert [credit("tie", "first"), credit("first", "first"), credit("second", "first")] == [0.5, 1.0, 0.0]
    verdicts = [PairVerdict("tie", "first"), PairVerdict("tie", "tie")]
    itself, truth = consistency(verdicts), accuracy(verdicts, ["first", "first"])
    assert itself is not None
    assert truth is not None
    assert truth.accuracy == pytest.approx(((0.5 + 1) / 2 + 0.5) / 2)
    assert (itself.agreement, itself.tied, itself.flipped) == (0.5, 1.0, 0)
    assert itself.first_shown == 0.0  # the only verdict that names a response: the one shown second


def test_where_nothing_is_known_nothing_is_said() -> None:
    assert consistency([NONE]) is None
    assert accuracy([NONE], ["first"]) is None
    assert consistency([]) is None
    always = consistency([ONE, ONE])
    assert always is not None
    assert (always.kappa, always.flipped_to_first, always.flipped_to_first_interval) == (None, None, None)
    ties = consistency([PairVerdict("tie", "tie")])
    assert ties is not None
    assert ties.first_shown is None


def test_kappa_of_a_printed_example() -> None:
    # J. Cohen's coefficient, two raters over 50: both yes 20, both no 15, yes/no 5, no/yes 10.
    # Agreement 35/50 = 0.7; by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5; kappa 0.4.
    raters = [("y", "y")] * 20 + [("n", "n")] * 15 + [("y", "n")] * 5 + [("n", "y")] * 10
    assert cohen_kappa([one for one, _ in raters], [other for _, other in raters]) == pytest.approx(0.4)


def test_the_longer_one_wins_in_either_order() -> None:
    pairs = [Pair("p", "ab", "a"), Pair("p", "a", "ab"), Pair("p", "a", "b")]
    assert longer_wins(pairs) == [ONE, TWO, PairVerdict("tie", "tie")]


# ---- recorded judges --------------------------------------------------------------------------------


def test_rows_in_the_form_of_llmbar_are_read_from_the_replies(tmp_path: Path) -> None:
    def row(label: int, straight: str, swapped: str) -> dict[str, Any]:
        said = {
            f"swap = {swap}": {"completion": [reply, "stop"], "winner": "1"}  # stated, and not to be believed
            for swap, reply in ((False, straight), (True, swapped))
        }
        return {"input": "p", "output_1": "long one", "output_2": "short", "label": label, "results": [said]}

    path = tmp_path / "result.json"
    a, b = "Output (a)", "Output (b)"
    path.write_text(json.dumps([row(1, a, b), row(2, b, a), row(2, a, a), row(1, "Both: Output (a)", b)]))
    verdicts, pairs = read_verdicts(path), read_pairs(path)
    assert verdicts[:3] == [ONE, TWO, TO_FIRST]
    assert (verdicts[3].winner, verdicts[3].missing) == (None, "malformed: ['Both: Output (a)']")
    found = accuracy(verdicts, [labelled.label for labelled in pairs])
    assert found is not None
    assert (found.pairs, found.accuracy) == (3, pytest.approx(2.5 / 3))
    path.write_text('[{"input": "p"}]')
    with pytest.raises(DataError, match=r"result\.json: row 1: needs input, output_1, output_2, and label 1 or 2"):
        read_pairs(path)
    with pytest.raises(DataError, match=r"row 1: needs one result"):
        read_verdicts(path)
    path.write_text("{}")
    with pytest.raises(DataError, match=r"a JSON list of rows, not dict"):
        read_pairs(path)


@recorded
@pytest.mark.parametrize(
    ("judge", "pairs", "right", "agreed", "kappa", "to_first"),
    [
        # GPT-4 on Natural: right twice in 93 of 100 pairs, once in 5: (93 + 2.5) / 100.
        ("Natural_GPT-4", 100, 0.955, 0.950, 0.898, (3, 5)),
        ("Natural_ChatGPT", 100, 0.815, 0.710, 0.429, (25, 29)),
        ("Adversarial_Neighbor_GPT-4", 134, 0.787, 0.933, 0.865, (6, 9)),
        # Right twice in 7 of 134 pairs, once in 38: (7 + 19) / 134. Where the order decided, the first won 35 of 38.
        ("Adversarial_Neighbor_ChatGPT", 134, 0.194, 0.716, 0.462, (35, 38)),
    ],
)
def test_the_figures_of_the_recorded_judges_come_out(
    judge: str, pairs: int, right: float, agreed: float, kappa: float, to_first: tuple[int, int]
) -> None:
    path = LLMBAR / f"judge_{judge}_result.json"
    verdicts = read_verdicts(path)
    itself, truth = consistency(verdicts), accuracy(verdicts, [labelled.label for labelled in read_pairs(path)])
    assert itself is not None
    assert truth is not None
    assert (itself.pairs, itself.missing) == (pairs, 0)
    assert (round(truth.accuracy, 3), round(itself.agreement, 3)) == (right, agreed)
    assert itself.kappa is not None
    assert round(itself.kappa, 3) == kappa
    assert itself.flipped == to_first[1]
    assert itself.flipped_to_first == pytest.approx(to_first[0] / to_first[1])


@recorded
@pytest.mark.parametrize(("part", "right"), [("Natural", 0.565), ("Adversarial_Neighbor", 0.119)])
def test_beside_them_the_longer_one_wins(part: str, right: float) -> None:
    # On Natural 56 of 100 longer ones are right and one pair is as long: 56.5. On Neighbor 16 of 134, so that
    # ChatGPT's 19.4% is little better than counting letters, and both are far below a coin.
    labelled = read_pairs(LLMBAR / f"judge_{part}_ChatGPT_result.json")
    verdicts = longer_wins([row.pair for row in labelled])
    itself, truth = consistency(verdicts), accuracy(verdicts, [row.label for row in labelled])
    assert itself is not None
    assert truth is not None
    assert round(truth.accuracy, 3) == right
    assert itself.agreement == 1.0


@recorded
@pytest.mark.parametrize(
    "judge", ["Natural_GPT-4", "Natural_ChatGPT", "Adversarial_Neighbor_GPT-4", "Adversarial_Neighbor_ChatGPT"]
)
def test_what_we_read_off_the_replies_is_what_the_files_state(judge: str) -> None:
    path = LLMBAR / f"judge_{judge}_result.json"
    name = {"1": "first", "2": "second"}
    stated = [
        tuple(name[row["results"][0][f"swap = {swap}"]["winner"]] for swap in (False, True))
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]
    assert [(verdict.forward, verdict.backward) for verdict in read_verdicts(path)] == stated


@recorded
def test_the_judged_rows_are_those_of_the_dataset() -> None:
    for part in ("Natural", "Adversarial_Neighbor"):
        rows = read_pairs(LLMBAR / f"llmbar_{part}.json")
        assert rows == read_pairs(LLMBAR / f"judge_{part}_GPT-4_result.json")

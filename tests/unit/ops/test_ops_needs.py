"""An op's needs are noted beside it and change nothing in it."""

from rlpipe.ops.needs import Needs, needs, needs_of


def test_what_is_noted_is_found_again():
    @needs(group=3, because="it likes company", values="welcome")
    def op(x):
        return x + 1

    assert needs_of(op) == Needs(group=3, because="it likes company", values="welcome")
    assert op(1) == 2


def test_an_op_without_a_note_needs_nothing():
    assert needs_of(len) == Needs(
        group=1, because="", values="unread", on_policy=False, behaviour=False, reference=False,
        kl_baseline=False, vocabulary=False,
    )  # fmt: skip

"""What is asked, and that only a whole reply from the list is a verdict."""

from __future__ import annotations

import json

import pytest

from rlpipe.rewards.judges.base import JudgeError
from rlpipe.rewards.judges.fence import Fence
from rlpipe.rewards.judges.templates import Template, choice_template, score_template

FENCE = Fence("key")
PLAIN = Template(system="", user="{prompt}={response}?", replies={"+": 1.0, "-": 0.0})


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ('{"score": 1}', 0.0),
        ('{"score": 10}', 1.0),
        ('\n{ "score":4 }  ', 1 / 3),  # (4 - 1) / (10 - 1)
        ('{"score": 0}', None),
        ('{"score": 11}', None),
        ('{"score": 7.0}', None),
        ('{"score": "7"}', None),
        ('{"score": true}', None),
        ('{"score": NaN}', None),
        ('{"score": 7, "score": 10}', None),  # which one?
        ('{"score": 7, "choice": "A"}', None),
        ('{"score": 7, "reason": "good"}', None),  # not asked to say why
        ('I would say {"score": 7}', None),
        ('{"score": 7}\n{"score": 10}', None),
        ('"{\\"score\\": 10}"', None),  # quoted
        ('[["score", 10]]', None),
        ("7", None),
        ("", None),
        ("[" * 100_000, None),
    ],
)
def test_a_reply_counts_whole_or_not_at_all(reply: str, value: float | None) -> None:
    assert score_template().value(reply) == (None if value is None else pytest.approx(value))


def test_a_reason_may_stand_in_the_object_and_is_not_read() -> None:
    template = choice_template(reasoned=True)
    assert template.value('{"reason": "It says {\\"choice\\": \\"B\\"}, which is forged.", "choice": "A"}') == 1.0
    assert template.value('{"choice": "B"}') == 0.0
    assert template.value('{"reason": 3, "choice": "A"}') is None
    assert template.value('{"reason": "a", "reason": "b", "choice": "A"}') is None


def test_plain_replies_are_for_models_that_speak_no_json() -> None:
    assert (PLAIN.value(" +\n"), PLAIN.value("-"), PLAIN.value("+-")) == (1.0, 0.0, None)
    assert PLAIN.messages(FENCE, ["1+1", "2"]) == ({"role": "user", "content": "1+1=2?"},)


def test_the_schema_admits_the_replies_and_nothing_else() -> None:
    assert choice_template().schema() == {
        "type": "object",
        "properties": {"choice": {"type": "string", "enum": ["A", "B"]}},
        "required": ["choice"],
        "additionalProperties": False,
    }
    assert score_template(top=3).schema()["properties"] == {"score": {"type": "integer", "enum": [1, 2, 3]}}
    mixed = Template(system="", user="{prompt} {response}", replies={'{"is": "bad"}': 0.0, '{"is": 1}': 1.0})
    assert mixed.schema()["properties"] == {"is": {"enum": ["bad", 1]}}
    # The reason first: what a model writes before its verdict can still change it.
    assert list(choice_template(reasoned=True).schema()["properties"]) == ["reason", "choice"]
    with pytest.raises(JudgeError, match=r"structure json_schema needs replies such as"):
        PLAIN.schema()


def test_texts_are_shown_in_order_between_the_fences_and_never_filled_in_themselves() -> None:
    template = choice_template()
    texts = ["the task", "says {second} and {nonce}", "the other"]
    system, user = template.messages(FENCE, texts)
    nonce = FENCE.nonce(template.digest, texts)
    assert f"[response A {nonce}]\nsays {{second}} and {{nonce}}\n[end of response A {nonce}]" in user["content"]
    assert f"[response B {nonce}]\nthe other\n[end of response B {nonce}]" in user["content"]
    assert nonce in system["content"]
    assert "{nonce}" not in system["content"]


def test_the_replies_that_are_asked_for_in_words_are_those_that_count() -> None:
    assert score_template(top=5).replies == {'{"score": %d}' % n: (n - 1) / 4 for n in range(1, 6)}  # noqa: UP031
    for template in (choice_template(), score_template(top=5), choice_template(reasoned=True)):
        [key] = {next(iter(json.loads(reply))) for reply in template.replies}
        assert f'"{key}": ' in template.system


def test_another_word_is_another_template() -> None:
    digests = {
        template.digest
        for template in (
            choice_template(),
            choice_template(reasoned=True),
            score_template(),
            score_template(top=5),
            PLAIN,
            Template(system="", user="{prompt}={response}?", replies={"+": 0.5, "-": 0.0}),
        )
    }
    assert len(digests) == 6


def test_a_template_that_asks_nothing_is_refused() -> None:
    with pytest.raises(JudgeError, match=r"has the fields \['prompt'\]; it needs"):
        Template(system="", user="{prompt}", replies={"+": 1.0, "-": 0.0})
    with pytest.raises(JudgeError, match=r"at least two are needed"):
        Template(system="", user="{prompt} {response}", replies={"+": 1.0})
    with pytest.raises(JudgeError, match=r"each worth 0 to 1"):
        Template(system="", user="{prompt} {response}", replies={"+": 2.0, "-": 0.0})

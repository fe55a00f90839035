"""The response under judgment is data. Two walls keep it so: role tokens are broken up, and a nonce fences it in."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Sequence

# What chat templates write between turns, in the forms of the open model families; a bar may be the full-width
# one, and brackets too, since some tokenizers fold those (NFKC) before they look for their control tokens.
_ROLE_TOKENS = (
    r"[<＜][|｜][^<>＜＞|｜\s]{1,40}[|｜][>＞]",  # <|im_start|> <|eot_id|> <|user|> <｜Assistant｜>
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|PREFIX|MIDDLE|SUFFIX|IMG)\]",
    r"<</?SYS>>",
    r"</?s>|<(?:bos|eos|pad|unk|mask|sep|cls)>|\[(?:PAD|UNK|CLS|SEP|MASK|BOS|EOS)\]",
    r"</?(?:start|end)_of_turn>|<(?:start|end)_of_(?:image|text|utterance)>",
    r"<\|(?:START|END)_[A-Z_]{1,30}_TOKEN\|>",
)
_SURROGATE = re.compile("[\ud800-\udfff]")


class Fence:
    """Makes text safe to stand in a judge's prompt, the same way every time.

    The nonce is HMAC-SHA256 of all that is shown, under the run's key. It must be the same in a rerun, or no
    judgment could be kept on file; it must not be known to who wrote the response. Both hold: without the key it
    is a random number, and even with the key nobody can write the nonce of a text into that text, since a text
    that contains another nonce has another nonce: one would have to guess 128 bits.

    Args:
        key: of the run; another key asks every question anew.
        control: further control tokens to break up, such as those of a local judge's own tokenizer.
    """

    def __init__(self, key: str, control: Iterable[str] = ()) -> None:
        self._key = key.encode()
        plain = {token.strip() for token in control} - {""}
        longest_first = sorted(plain, key=lambda token: (-len(token), token))
        self._control = re.compile("|".join((*map(re.escape, longest_first), *_ROLE_TOKENS)), re.IGNORECASE)

    @property
    def fingerprint(self) -> str:
        """What tells two fences apart, without the key."""
        return hashlib.sha256(b"\0".join((self._key, self._control.pattern.encode()))).hexdigest()[:16]

    def nonce(self, template: str, texts: Sequence[str]) -> str:
        """32 hexadecimal digits of the template's hash and the texts in the order shown."""
        content = json.dumps([template, *texts], ensure_ascii=False).encode("utf-8", "surrogatepass")
        return hmac.new(self._key, content, hashlib.sha256).hexdigest()[:32]

    def disarm(self, text: str) -> str:
        """`text` with a space inside every control token, so that none is left; nothing is taken away.

        Taking tokens out would not do: `<|im_<|im_start|>start|>` without its inner token is a token again. A
        space joins nothing, so no new token can arise. Only half of a surrogate pair, which no request can
        carry, becomes the replacement character.
        """
        text = _SURROGATE.sub("\ufffd", text)
        # Tokens may overlap: each round breaks at least one of those that are left.
        while self._control.search(text):
            text = self._control.sub(_broken, text)
        return text


def _broken(match: re.Match[str]) -> str:
    """The token with a space behind its first character; a token of one character becomes that space."""
    token = match[0]
    return f"{token[0]} {token[1:]}" if len(token) > 1 else " "

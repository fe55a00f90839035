"""Judgments on file: nothing is lost that was filed, and the same judgments are the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlpipe.rewards.judges.base import JudgeError
from rlpipe.rewards.judges.journal import Journal, Judgment, content_key, read_judgments, write_judgments


def judgment(key: str, reply: str = '{"choice": "A"}') -> Judgment:
    return Judgment(key=key, model="m", template="t", outcome="replied", reply=reply, prompt_tokens=3)


def test_what_is_filed_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    with_logps = Judgment("b", "m", "t", "replied", "+", 2, 1, {"+": -0.5, "-": -1.25})
    with Journal(path) as journal:
        journal.add(with_logps)
    with Journal(path) as journal:
        assert journal.get("b") == with_logps
        assert journal.get("c") is None


def test_the_order_of_the_answers_does_not_show_in_the_file(tmp_path: Path) -> None:
    files = []
    for name, order in (("one", "bca"), ("other", "cab")):
        with Journal(tmp_path / name) as journal:
            for key in order:
                journal.add(judgment(key))
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    assert [json.loads(line)["key"] for line in files[0].splitlines()] == ["a", "b", "c"]


def test_a_line_is_in_the_file_when_it_is_filed(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.add(judgment("b"))
        assert list(read_judgments(tmp_path / "j")) == ["b"]


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_half_a_line_is_dropped_and_the_rest_is_kept(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "j"
    write_judgments(path, [judgment("a"), judgment("b")])
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path) as journal:
        assert journal.dropped == 1
        assert journal.get("a") == judgment("a")
        assert journal.get("b") is None
        journal.add(judgment("b"))
    assert list(read_judgments(path)) == ["a", "b"]


def test_a_first_line_cut_off_leaves_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b'{"key"')
    with Journal(tmp_path / "j") as journal:
        assert journal.dropped == 1
    assert (tmp_path / "j").read_bytes() == b""


def test_a_line_whose_bytes_were_lost_at_the_end_is_dropped(tmp_path: Path) -> None:
    # A loss of power: the file has its new length, its last block is zeros.
    write_judgments(tmp_path / "j", [judgment("a")])
    with (tmp_path / "j").open("ab") as file:
        file.write(b"\0" * 50 + b"\n")
    with Journal(tmp_path / "j") as journal:
        assert journal.dropped == 1
        assert journal.get("a") is not None


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    write_judgments(tmp_path / "j", [judgment("a"), judgment("b")])
    first, second = (tmp_path / "j").read_text().splitlines(keepends=True)
    (tmp_path / "j").write_text(first + '{"key": "x"}\n' + second)
    with pytest.raises(JudgeError, match=r"j:2: no judgment .* Delete the line"), Journal(tmp_path / "j"):
        pass
    with pytest.raises(JudgeError, match=r"j:2"), Journal(tmp_path / "j"):  # the file is not left locked
        pass


def test_a_process_killed_while_it_files_leaves_whole_judgments(tmp_path: Path) -> None:
    # It files for ever and says so; killed at any moment, what it said it had filed is there.
    program = (
        "import sys; from pathlib import Path\n"
        "from rlpipe.rewards.judges.journal import Journal, Judgment\n"
        "with Journal(Path(sys.argv[1])) as journal:\n"
        "    for n in range(10**9):\n"
        "        journal.add(Judgment(f'{n:09}', 'm', 't', 'replied', 'x' * 5000))\n"
        "        print(n, flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "j")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(20)]
    writer.send_signal(signal.SIGKILL)
    said += [int(line) for line in writer.stdout.read().split()]
    assert writer.wait() == -9
    with Journal(tmp_path / "j") as journal:  # and the dead process's lock is gone
        assert all(journal.get(f"{n:09}") is not None for n in said)


def test_two_at_a_time_are_refused(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "j"),
        pytest.raises(JudgeError, match=r"another process writes its judgments there"),
        Journal(tmp_path / "j"),
    ):
        pass


def test_known_files_are_read_and_never_written(tmp_path: Path) -> None:
    write_judgments(tmp_path / "known", [judgment("a")])
    before = (tmp_path / "known").read_bytes()
    with Journal(tmp_path / "j", [tmp_path / "known"]) as journal:
        assert journal.get("a") == judgment("a")
        journal.add(judgment("b"))
    assert (tmp_path / "known").read_bytes() == before
    assert list(read_judgments(tmp_path / "j")) == ["b"]
    with pytest.raises(JudgeError, match=r"no such file of judgments\. Pull it"):
        read_judgments(tmp_path / "none")


def test_a_known_judgment_counts_before_one_that_happens_to_be_in_the_journal(tmp_path: Path) -> None:
    write_judgments(tmp_path / "known", [judgment("a", "of the versioned file")])
    write_judgments(tmp_path / "j", [judgment("a", "of an earlier run")])
    with Journal(tmp_path / "j", [tmp_path / "known"]) as journal:
        assert journal.get("a") == judgment("a", "of the versioned file")


def test_the_first_of_two_under_one_key_counts_and_the_other_goes(tmp_path: Path) -> None:
    write_judgments(tmp_path / "one", [judgment("a", "first")])
    write_judgments(tmp_path / "two", [judgment("a", "second")])
    (tmp_path / "j").write_bytes((tmp_path / "one").read_bytes() + (tmp_path / "two").read_bytes())
    with Journal(tmp_path / "j"):
        pass
    assert (tmp_path / "j").read_bytes() == (tmp_path / "one").read_bytes()


def test_a_reply_may_hold_anything(tmp_path: Path) -> None:
    wild = judgment("a", "line\nfeed\r\u2028\u0085\0\ud83d \U0001f600")
    write_judgments(tmp_path / "j", [wild])
    assert read_judgments(tmp_path / "j") == {"a": wild}
    assert (tmp_path / "j").read_bytes().count(b"\n") == 1


def test_the_key_knows_everything_that_an_answer_depends_on() -> None:
    keys = {
        content_key("m", {"temperature": 0.0}, "t", ["p", "a", "b"]),
        content_key("n", {"temperature": 0.0}, "t", ["p", "a", "b"]),
        content_key("m", {"temperature": 0.5}, "t", ["p", "a", "b"]),
        content_key("m", {"temperature": 0.0}, "u", ["p", "a", "b"]),
        content_key("m", {"temperature": 0.0}, "t", ["p", "b", "a"]),
        content_key("m", {"temperature": 0.0}, "t", ["p", "a"]),
    }
    assert len(keys) == 6
    assert content_key("m", {"a": 1, "b": 2}, "t", []) == content_key("m", {"b": 2, "a": 1}, "t", [])

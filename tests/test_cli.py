# SPDX-License-Identifier: MIT
"""The command line, as a user meets it: real processes, what they print, how they end."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chronicle_ffi import Queue, RecoveryWarning, Retention, __version__
from chronicle_ffi.cli import main
from tests.damage import restart

COMMANDS: tuple[str, ...] = (
    "append",
    "record",
    "tail",
    "inspect",
    "verify",
    "repair",
    "quarantine",
    "cleanup",
    "archive",
    "export",
)
COMMANDS += ("forget", "demo")


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "chronicle_ffi", *arguments], stdin=pipe, stdout=pipe, stderr=pipe
    )


def run(*arguments: str | Path, status: int = 0, stdin: bytes = b"") -> tuple[str, str]:
    """(stdout, stderr); whatever happens, there is no traceback."""
    process = start(*arguments)
    out, err = process.communicate(stdin, timeout=60)
    assert b"Traceback" not in err, err.decode()
    assert process.returncode == status, (out, err)
    return out.decode(), err.decode()


@pytest.fixture
def lines(queue: Path) -> Path:
    """Twenty records, line 0 to line 19, one second apart, of types 0 and 1 in turn."""
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:
        for i in range(20):
            writer.append(b"line %d" % i, i % 2, timestamp_ns=(1_700_000_000 + i) * 10**9)
    return queue


# --------------------------------------------------------------------------------------------- append


def test_append_from_stdin_and_file(queue: Path, tmp_path: Path) -> None:
    _, err = run("append", queue, stdin=b"one\n\nthree\r\nlast without newline")
    assert "4 records, seq 0 to 3" in err
    source = tmp_path / "source"
    source.write_bytes(b"\xff\xfe\n" * 3)
    run("append", queue, "--file", source, "--type", "7", "--durability", "always")
    with Queue.open_subscriber(queue) as reader:
        found = [(message.payload, message.type_id) for message in reader]
    assert found == [(b"one", 0), (b"", 0), (b"three\r", 0), (b"last without newline", 0), *[(b"\xff\xfe", 7)] * 3]


def test_append_of_a_directory(queue: Path, tmp_path: Path) -> None:
    assert f"{tmp_path} is a directory" in run("append", queue, "--file", tmp_path, status=2)[1]
    assert not queue.exists()


def test_append_tells_which_line_is_too_long(queue: Path) -> None:
    _, err = run("append", queue, "--segment-size", "64K", stdin=b"short\n" + b"x" * 70_000 + b"\n", status=2)
    assert "line 2" in err
    assert Queue.info(queue).next_seq == 1


def test_append_leaves_out_lines_that_are_too_long(queue: Path) -> None:
    """And all of each, however many pieces it comes in: one is longer than a read."""
    source = b"a\n" + b"x" * 70_000 + b"\nb\n" + b"y" * 3_000_000 + b"\nc\n" + b"z" * 70_000
    _, err = run("append", queue, "--segment-size", "64K", stdin=source, status=2)
    assert [line.split(" of ")[0] for line in err.splitlines()[:-1]] == [f"chronicle: line {n}" for n in (2, 4, 6)]
    with Queue.open_subscriber(queue) as reader:
        assert list(reader.payloads()) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_append_keeps_what_it_read_when_a_signal_ends_it(queue: Path, number: signal.Signals) -> None:
    before = signal.signal(number, signal.default_int_handler)  # one that is ignored, as under nohup, stays so
    process = start("append", queue)
    signal.signal(number, before)
    assert process.stdin is not None
    process.stdin.write(b"first\nwithout an end")
    process.stdin.flush()
    give_up = time.monotonic() + 30
    while not (queue / "queue.meta").exists() or Queue.info(queue).next_seq == 0:
        assert time.monotonic() < give_up
        time.sleep(0.02)
    process.send_signal(number)
    process.wait(timeout=30)
    assert process.returncode == 128 + number
    assert process.stderr is not None
    assert b"appended 2 records" in process.stderr.read()
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    assert Queue.info(queue).clean
    with Queue.open_subscriber(queue) as reader:
        assert list(reader.payloads()) == [b"first", b"without an end"]


def test_append_stores_lines_as_they_arrive(queue: Path) -> None:
    process = start("append", queue)
    assert process.stdin is not None
    process.stdin.write(b"first\nsecond half")
    process.stdin.flush()
    give_up = time.monotonic() + 30
    while not (queue / "queue.meta").exists() or Queue.info(queue).next_seq == 0:
        assert time.monotonic() < give_up
        time.sleep(0.02)
    process.communicate(b" of it\n", timeout=30)
    with Queue.open_subscriber(queue) as reader:
        assert [message.payload for message in reader] == [b"first", b"second half of it"]


# ----------------------------------------------------------------------------------- odd surroundings


@pytest.mark.parametrize("closed", ["0", "1", "2", "01", "02", "12", "012"])
def test_standard_streams_may_be_closed(lines: Path, closed: str) -> None:
    """What would be written to them is written nowhere: least of all into the queue's files."""
    source = lines.parent / "source"
    source.write_bytes(b"x\n")
    redirected = " ".join(f"{number}{'<' if number == '0' else '>'}&-" for number in closed)

    def status(command: str, arguments: str) -> int:
        line = f'"{sys.executable}" -m chronicle_ffi {command} "{lines}" {arguments} {redirected}'
        return subprocess.run(["sh", "-c", line], capture_output=True, timeout=60, check=False).returncode

    before = {file.name: file.read_bytes() for file in lines.glob("**/*") if file.is_file()}
    for command in ("tail", "inspect", "verify"):
        assert status(command, "") == (2 if "1" in closed else 0)
    assert {file.name: file.read_bytes() for file in lines.glob("**/*") if file.is_file()} == before
    assert status("tail", "--reader me") == (2 if "1" in closed else 0)
    assert [reader.position for reader in Queue.readers(lines)] == [0 if "1" in closed else 20]
    assert status("append", f'--file "{source}"') == 0
    assert status("append", f'< "{source}"') == (2 if "0" in closed else 0)
    assert status("record", "-- echo text") == 0
    assert Queue.verify(lines).ok
    with Queue.open_subscriber(lines, start=20) as reader:
        found = [message.payload for message in reader if message.type_id in (0, 1)]
    assert found == [b"x"] * (1 if "0" in closed else 2) + [b"text\n"]


@pytest.mark.parametrize(
    ("command", "tells"),
    [
        ("inspect {queue} >/dev/full", "cannot write to stdout: No space left on device"),
        ("tail {queue} >&-", "cannot write to stdout: Bad file descriptor"),
        ("append {queue} <&-", "cannot read the input: Bad file descriptor"),
        ("append {queue} --file nowhere", "nowhere: No such file or directory"),
    ],
)
def test_a_stream_that_fails_is_named(lines: Path, command: str, tells: str) -> None:
    """A full disk under stdout is not the queue's."""
    line = f"'{sys.executable}' -m chronicle_ffi {command.format(queue=lines)}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"chronicle: {tells}")


def test_repair_without_stdin_or_stdout_does_nothing(lines: Path) -> None:
    """Nobody can say yes, or nobody can be told what is done."""
    damage(lines)
    before = {file: file.read_bytes() for file in lines.rglob("*") if file.is_file() and file.name != "writer.lock"}
    for how, status in (("<&-", 5), ("--yes >&-", 2), ("--yes >/dev/full", 2)):
        line = f"'{sys.executable}' -m chronicle_ffi repair {lines} {how}"
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status, done.stderr
        assert {file: file.read_bytes() for file in before} == before


def test_a_user_without_a_name_and_nowhere_to_write(lines: Path) -> None:
    """Defaults of one command are not made for the others, where they may fail."""
    script = (
        "import getpass, tempfile, sys\n"
        "def fail(*_): raise OSError('not here')\n"
        "getpass.getuser = tempfile.gettempdir = fail\n"
        "from chronicle_ffi.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    for arguments in (["--help"], ["tail", str(lines)], ["append", str(lines)], ["demo", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], input=b"", capture_output=True, timeout=60, check=False
        )
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    done = subprocess.run([sys.executable, "-c", script, "demo"], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, b"chronicle: not here\n")


# --------------------------------------------------------------------------------------------- record


def test_record_passes_everything_through(queue: Path) -> None:
    script = "printf 'out 1\\nout 2'; printf 'err\\n' >&2; exit 7"
    out, err = run("record", queue, "--", "sh", "-c", script, status=7)
    assert (out, err) == ("out 1\nout 2", "err\n")
    with Queue.open_subscriber(queue) as reader:
        found = [(message.type_id, message.payload) for message in reader]
    assert found[0][0] == 3
    assert json.loads(found[0][1])["argv"] == ["sh", "-c", script]
    assert json.loads(found[-1][1]) == {"status": 7, "signal": None}
    assert b"".join(payload for type_id, payload in found if type_id == 1) == b"out 1\nout 2"
    assert b"".join(payload for type_id, payload in found if type_id == 2) == b"err\n"


def test_record_exit_statuses(queue: Path, tmp_path: Path) -> None:
    run("record", queue, "--", "true")
    run("record", queue, "--", "/no/such/command", status=127)
    run("record", queue, "--", tmp_path, status=126)
    run("record", queue, "--", "sh", "-c", "kill -TERM $$", status=128 + signal.SIGTERM)
    run("record", queue, status=2)
    assert Queue.verify(queue).ok


def test_record_forwards_signals(queue: Path) -> None:
    script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    process = start("record", queue, "--", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == (b"caught\n", 9)


# ----------------------------------------------------------------------------------------------- tail


def test_tail_shows_the_end_by_default(lines: Path) -> None:
    assert run("tail", lines)[0].splitlines() == [f"line {i}" for i in range(10, 20)]
    assert run("tail", lines, "-n", "3")[0].splitlines() == ["line 17", "line 18", "line 19"]
    assert run("tail", lines, "-n", "0")[0] == ""
    assert len(run("tail", lines, "-n", "1000")[0].splitlines()) == 20


def test_tail_from_somewhere(lines: Path) -> None:
    assert run("tail", lines, "--from", "18")[0] == "line 18\nline 19\n"
    assert run("tail", lines, "--from", "5", "-n", "2")[0] == "line 5\nline 6\n"
    assert len(run("tail", lines, "--from", "oldest")[0].splitlines()) == 20
    assert run("tail", lines, "--from", "@1700000019")[0] == "line 19\n"
    assert run("tail", lines, "--from", "2023-11-14T22:13:38Z")[0] == "line 18\nline 19\n"
    assert run("tail", lines, "--from", "oldest", "--type", "1", "-n", "2")[0] == "line 1\nline 3\n"
    run("tail", lines, "--from", "21", status=2)
    run("tail", lines, "--from", "yesterday", status=2)


def test_tail_formats(lines: Path) -> None:
    (out, _) = run("tail", lines, "-n", "1", "--format", "json")
    assert json.loads(out) == {
        "seq": 19,
        "time": "2023-11-14T22:13:39.000000000Z",
        "timestamp_ns": 1_700_000_019 * 10**9,
        "type_id": 1,
        "flags": 0,
        "text": "line 19",
    }
    out, _ = run("tail", lines, "-n", "1", "--format", "hex")
    assert "6c 69 6e 65 20 31 39" in out
    assert "|line 19|" in out
    with Queue.open_publisher(lines) as writer:
        writer.append(b"\xff")
    assert json.loads(run("tail", lines, "-n", "1", "--format", "json")[0])["base64"] == "/w=="


def test_tail_as_a_reader_resumes(lines: Path) -> None:
    assert len(run("tail", lines, "--reader", "me", "-n", "5")[0].splitlines()) == 5
    assert Queue.readers(lines)[0].position == 5
    assert run("tail", lines, "--reader", "me", "-n", "1")[0] == "line 5\n"
    assert len(run("tail", lines, "--reader", "me")[0].splitlines()) == 14
    assert run("tail", lines, "--reader", "me")[0] == ""
    run("forget", lines, "me")
    assert Queue.readers(lines) == []
    run("forget", lines, "me", status=2)


def test_tail_follows_until_interrupted(lines: Path) -> None:
    process = start("tail", lines, "-f", "-n", "1")
    assert process.stdout is not None
    assert process.stdout.readline() == b"line 19\n"
    with Queue.open_publisher(lines) as writer:
        writer.append(b"new")
    assert process.stdout.readline() == b"new\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")


def test_a_pipe_that_closes_early_is_no_error(queue: Path) -> None:
    with Queue.open_publisher(queue) as writer:
        writer.append_many([b"x" * 1000] * 2000)
    command = f"{sys.executable} -m chronicle_ffi tail {queue} --from oldest | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"x" * 1000 + b"\n", b"")


# ------------------------------------------------------------------------------------ looking, mending


def test_inspect(lines: Path) -> None:
    with Queue.open_subscriber(lines, "me", start=4) as reader:
        reader.commit()
        out, _ = run("inspect", lines)
        assert "20 records, seq 0 to 19" in out
        assert "me" in out
        found = json.loads(run("inspect", lines, "--json")[0])
    assert (found["oldest_seq"], found["next_seq"], found["durable_seq"], found["writer"]) == (0, 20, None, None)
    assert [(r["name"], r["position"], r["lag"], r["alive"]) for r in found["readers"]] == [("me", 4, 16, True)]
    assert [(s["base_seq"], s["next_seq"], s["sealed"]) for s in found["segments"]] == [(0, 20, False)]


def test_verify_and_repair(lines: Path) -> None:
    assert "all is well" in run("verify", lines)[0]
    with Queue.open_publisher(lines) as writer:
        writer.sync()
    with next(lines.glob("*.seg")).open("r+b") as file:
        file.seek(8192 + 7 * 64 + 33)
        file.write(b"X")
    out, _ = run("verify", lines, status=1)
    assert f"{0:020}.seg, byte {8192 + 7 * 64}: record, seq 7" in out
    assert json.loads(run("verify", lines, "--json", status=1)[0])["problems"][0]["seq"] == 7
    _, err = run("append", lines, stdin=b"x", status=1)
    assert "repair" in err
    _, err = run("tail", lines, "--from", "oldest", status=1)
    assert "damaged" in err
    out, err = run("tail", lines, "--from", "oldest", "--skip-damaged")
    assert len(out.splitlines()) == 19
    assert "skipped 1 record" in err
    out, _ = run("repair", lines, "--yes", status=4)
    assert "given up: 1 record in 1 gap" in out
    assert "the log goes on at seq 20" in out
    assert "all is well" in run("verify", lines)[0]
    assert "lost" not in run("append", lines, stdin=b"x")[1]
    _, err = run("tail", lines, "--from", "oldest", status=2)
    assert "--from 8, or --skip-damaged" in err
    run("tail", lines, "--from", "8")
    for how in (["--from", "oldest"], ["--reader", "me"]):
        out, err = run("tail", lines, "--skip-damaged", *how)
        assert len(out.splitlines()) == 20
        assert "skipped 1 record: " in err


def test_tail_skips_what_retention_deleted(queue: Path) -> None:
    keep = Retention(max_segments=2)
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False, retention=keep) as writer:
        with Queue.open_subscriber(queue, "slow") as reader:
            reader.commit()
        writer.append_many([b"x" * 1000] * 200)
    oldest = Queue.info(queue).oldest_seq
    assert oldest > 3
    for how in (["--from", "3"], ["--reader", "slow"]):
        _, err = run("tail", queue, *how, status=2)
        assert f"--from {oldest}, or --skip-damaged" in err
        out, err = run("tail", queue, "--skip-damaged", "--format", "json", *how)
        assert len(out.splitlines()) == 200 - oldest
        assert f"skipped {oldest - (3 if '3' in how else 0)} records: " in err


def damage(path: Path) -> None:
    """Record 7 has one bit less."""
    with next(path.glob("*.seg")).open("r+b") as file:
        file.seek(8192 + 7 * 64 + 33)
        file.write(b"X")


def test_repair_asks(lines: Path) -> None:
    """What it is told on stdin counts, terminal or not; nothing at all is no."""
    damage(lines)
    before = {file: file.read_bytes() for file in lines.rglob("*") if file.is_file() and file.name != "writer.lock"}
    for answer in (b"", b"\n", b"n\n", b"what?\n"):
        out, err = run("repair", lines, status=5, stdin=answer)
        assert "record 7 cannot be had" in out
        assert "Is this to be done? [y/N]" in out
        assert "nothing was changed" in err
    assert {file: file.read_bytes() for file in before} == before
    for answer in (b"y\n", b"YES\n"):
        out, _ = run("repair", lines, status=4 if answer == b"y\n" else 0, stdin=answer)
        assert ("nothing is wrong" in out) == (answer != b"y\n")


def test_repair_has_exit_statuses_of_its_own(lines: Path) -> None:
    def dry_and_done(status: int, *expected: str) -> None:
        for how in ("--dry-run", "--yes"):
            out, _ = run("repair", lines, how, status=status)
            assert all(text in out for text in expected), out
        run("repair", lines, "--dry-run")

    dry_and_done(0, "checked 20 records", "nothing is wrong")
    (lines / "queue.meta").unlink()
    dry_and_done(3, "queue.meta is missing: it is made anew", "nothing is lost")
    damage(lines)
    dry_and_done(4, "given up: 1 record in 1 gap")
    with Queue.open_publisher(lines, keeper=False):
        assert "open for writing" in run("repair", lines, "--yes", status=2)[1]
    for file in lines.glob("*.seg"):
        file.unlink()
    (lines / "queue.meta").write_bytes(b"")
    for how in ("--dry-run", "--yes"):
        assert "there is no segment" in run("repair", lines, how, status=6)[1]
    run("repair", lines, "--dry-run", "--yes", status=2)
    run("repair", lines / "nowhere", "--yes", status=2)


def test_repair_tells_what_it_keeps(lines: Path) -> None:
    (lines / "queue.meta").write_bytes(b"lost")
    out, _ = run("repair", lines, "--yes", status=3)
    (file,) = (lines / "quarantine").iterdir()
    assert f"kept: {file}" in out


def test_a_fault_of_the_program_is_no_damage(
    lines: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(path: str) -> None:
        raise AssertionError("a fault")

    monkeypatch.setattr(Queue, "verify", fault)
    assert main(["verify", str(lines)]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_nobody_advises_to_repair_unasked() -> None:
    """`verify || repair` would repair whatever makes verify fail."""
    for command in COMMANDS:
        assert "|| chronicle repair" not in run(command, "--help")[0]
        assert "|| repair" not in run(command, "--help")[0]


def cut(path: Path) -> Path:
    """Three whole records, set aside; their file."""
    restart(path)
    with next(path.glob("*.seg")).open("r+b") as file:
        file.seek(8192 + 17 * 64)
        file.write(bytes(64))
    with (
        pytest.warns(RecoveryWarning),
        Queue.open_publisher(path, keeper=False, torn="cut") as writer,
    ):
        assert writer.next_seq == 17
    (file_,) = (path / "quarantine").iterdir()
    return file_


def test_quarantine(lines: Path, tmp_path: Path) -> None:
    assert "nothing is in quarantine" in run("quarantine", lines)[0]
    assert "set aside" not in run("inspect", lines)[0]
    file = cut(lines)
    for action in ([], ["list"]):
        out, _ = run("quarantine", lines, *action)
        assert out.splitlines()[1].split()[:1] == [file.name]
        assert "2, from seq 18" in out
    out, err = run("quarantine", lines, "show")
    assert (out, err) == ("line 18\nline 19\n", f"{file.name}: 2 whole records\n")
    found = [
        json.loads(line) for line in run("quarantine", lines, "show", "--format", "json", file.name)[0].splitlines()
    ]
    assert [(one["seq"], one["type_id"], one["text"]) for one in found] == [(18, 0, "line 18"), (19, 1, "line 19")]
    assert f"set aside 1 file, 8.0 KiB: chronicle quarantine {lines}" in run("inspect", lines)[0]
    assert json.loads(run("inspect", lines, "--json")[0])["quarantine"][0]["name"] == file.name
    assert f"note: quarantine/{file.name}: cut from" in run("verify", lines)[0]
    assert "not in quarantine" in run("quarantine", lines, "show", "other.seg", status=2)[1]
    run("quarantine", lines, "restore", status=2)
    assert "appended 2 records" in run("quarantine", lines, "restore", tmp_path / "restored", file.name)[1]
    with Queue.open_subscriber(tmp_path / "restored") as reader:
        restored = [(m.seq, m.timestamp_ns // 10**9 - 1_700_000_000, m.type_id, m.payload) for m in reader]
    assert restored == [(0, 18, 0, b"line 18"), (1, 19, 1, b"line 19")]
    run("quarantine", lines, "restore", lines)  # to the end of the log they came from
    assert run("tail", lines, "-n", "2")[0] == "line 18\nline 19\n"


def test_cleanup_of_quarantine(lines: Path) -> None:
    cut(lines)
    out, _ = run("cleanup", lines, "--dry-run", "--quarantine-max-age", "1h")
    assert "quarantine: would delete 0 files (0 B), 1 file (8.0 KiB) left" in out
    out, _ = run("cleanup", lines, "--quarantine-max-age", "1ms")
    assert "quarantine: deleted 1 file (8.0 KiB), 0 files (0 B) left" in out
    assert "quarantine" not in run("cleanup", lines)[0]


def test_cleanup(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:
        writer.append_many([b"x" * 1000] * 300)
        out, _ = run("cleanup", queue, "--dry-run", "--max-segments", "2")
        assert "would delete 4 segments" in out
        _, err = run("cleanup", queue, "--max-segments", "2", status=2)
        assert "--dry-run" in err
    assert "no reader is registered" in run("cleanup", queue)[0]
    assert len(Queue.segments(queue)) == 6
    out, _ = run("cleanup", queue, "--max-segments", "2")
    assert "deleted 4 segments" in out
    assert len(Queue.segments(queue)) == 2


# ----------------------------------------------------------------------------------------- demo, usage


def test_the_directory_of_the_demo_is_nobody_elses_business(
    lines: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No directory for temporary files, on a read-only root, and a user without a name: only the demo minds."""

    def no_directory() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    def no_name(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("tempfile.gettempdir", no_directory)
    monkeypatch.setattr("pwd.getpwuid", no_name)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert main(["inspect", str(lines)]) == 0
    assert main(["demo", "--help"]) == 0
    capsys.readouterr()
    assert main(["demo", "--limit-files", "1"]) == 2
    assert "No usable temporary directory found: say with --dir where to work" in capsys.readouterr().err
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(lines.parent))
    assert main(["demo", "--limit-files", "60", "--segment-size", "64K"]) == 0
    assert (lines.parent / f"chronicle-demo-{os.getuid()}").is_dir()


def test_demo_twice(tmp_path: Path) -> None:
    for _ in range(2):
        out, _ = run("demo", "--dir", tmp_path / "demo", "--limit-files", "60", "--segment-size", "64K")
        assert "All readers saw exactly what the files hold" in out
        assert "inspect" in out
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thing").touch()
    run("demo", "--dir", tmp_path / "other", "--limit-files", "1", status=2)


def test_help_and_version() -> None:
    assert run("--version")[0] == f"chronicle {__version__}\n"
    out, _ = run("--help")
    for command in COMMANDS:
        assert command in out
        assert "usage: chronicle" in run(command, "--help")[0]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["tail"],
        ["tail", "/no/such/queue"],
        ["inspect", "/etc/passwd"],
        ["verify", "/tmp"],
        ["append", "/no/parent/queue"],
        ["append", "q", "--segment-size", "12"],
        ["append", "q", "--type", "65535"],
        ["tail", "q", "--format", "xml"],
        ["cleanup", "q", "--max-age", "soon"],
        ["repair", "/no/such/queue"],
    ],
)
def test_user_errors(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, err = run(*arguments, status=2)
    assert err


def test_errors_name_the_holder(lines: Path) -> None:
    with Queue.open_publisher(lines), Queue.open_subscriber(lines, "me"):
        _, err = run("append", lines, stdin=b"x", status=2)
        assert "process" in err
        _, err = run("tail", lines, "--reader", "me", status=2)
        assert "me" in err
        run("forget", lines, "me", status=2)

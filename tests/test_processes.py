# SPDX-License-Identifier: MIT
"""Several processes: a second writer, forks, deaths at bad moments, Ctrl-C, files pulled away."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue
from tests.children import in_child
from tests.damage import restart

SEGMENT = 1 << 16


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, out + err
    return out


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


HOLD = """
import sys
from chronicle_ffi import Queue
writer = Queue.open_publisher(sys.argv[1], segment_size=1 << 16)
writer.append(b"x")
print("open", flush=True)
sys.stdin.read()
writer.close()
"""


def test_a_second_writer_is_told_who_the_first_is(queue: Path) -> None:
    process = python(HOLD, queue)
    assert line(process) == "open"
    with pytest.raises(c.WriterAlreadyActive) as caught:
        Queue.open_publisher(queue)
    assert caught.value.pid == process.pid
    assert str(process.pid) in str(caught.value)
    assert isinstance(caught.value, BlockingIOError)
    info = Queue.info(queue)
    assert (info.writer_alive, info.writer_pid, info.clean) == (True, process.pid, False)
    finish(process)
    info = Queue.info(queue)
    assert (info.writer_alive, info.writer_pid, info.clean) == (False, None, True)
    with Queue.open_publisher(queue) as writer:
        assert writer.recovery.clean


def test_deleting_the_lock_file_lets_no_second_writer_in(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append(b"first")
        (queue / "writer.lock").unlink()
        with pytest.raises(c.WriterAlreadyActive):
            Queue.open_publisher(queue)
        assert writer.append(b"second") == 1
    with Queue.open_publisher(queue, keeper=False) as writer:
        assert writer.next_seq == 2


def test_a_killed_writer_holds_nothing(queue: Path) -> None:
    process = python(HOLD, queue)
    assert line(process) == "open"
    process.kill()
    process.communicate()
    assert not Queue.info(queue).clean
    with Queue.open_publisher(queue) as writer:
        assert not writer.recovery.clean
        assert writer.next_seq == 1


def test_handles_after_a_fork(queue: Path) -> None:
    writer = Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False)
    writer.append(b"before")
    reader = Queue.open_subscriber(queue, "me")

    def child() -> None:
        for call in (
            lambda: writer.append(b"x"),
            writer.sync,
            writer.cleanup,
            reader.next,
            reader.commit,
            lambda: reader.wait(1),
        ):
            with pytest.raises(c.ForkedHandle) as caught:
                call()
            assert isinstance(caught.value, RuntimeError)
        writer.close()
        reader.close()
        with pytest.raises(c.WriterAlreadyActive):  # the parent's lock is untouched
            Queue.open_publisher(queue)
        with pytest.raises(c.ReaderAlreadyActive):
            Queue.open_subscriber(queue, "me")
        with Queue.open_subscriber(queue) as own:
            assert own.next() is not None

    in_child(child)
    assert writer.append(b"after") == 1
    assert [message.payload for message in reader] == [b"before", b"after"]
    reader.commit()
    reader.close()
    writer.close()
    assert Queue.verify(queue).ok


def test_a_forked_child_does_not_keep_the_lock_alive(queue: Path) -> None:
    """The writer dies; its child, which never closed the handle, lives on."""
    process = python(
        """
        import os, sys, time
        from chronicle_ffi import Queue
        writer = Queue.open_publisher(sys.argv[1])
        child = os.fork()
        if child == 0:
            os.close(1)
            os.close(2)
            time.sleep(60)
            os._exit(0)
        print(child, flush=True)
        sys.stdin.read()
        os.kill(os.getpid(), 9)
        """,
        queue,
    )
    child = int(line(process))
    try:
        process.communicate(timeout=60)
        os.kill(child, 0)  # it does live
        Queue.open_publisher(queue).close()
    finally:
        os.kill(child, signal.SIGKILL)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """A small dose of ``make kill``: writers that append, batch, claim, sync, clean up and roll, and a reader."""
    command = [sys.executable, "-m", "tests.kill", "--kills", "40", "--seed", "7", "--dir", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 kills" in done.stdout


def test_a_killed_reader_costs_the_writer_nothing(queue: Path) -> None:
    with Queue.open_publisher(queue) as writer:
        code = """
            import sys
            from chronicle_ffi import Queue
            with Queue.open_subscriber(sys.argv[1], waiting="sleep") as reader:
                print("waiting", flush=True)
                reader.wait()
            """
        process = python(code, queue)
        assert line(process) == "waiting"
        time.sleep(0.2)
        process.kill()
        process.communicate()
        for _ in range(1000):
            writer.append(b"x")
        assert writer.stats().wakes <= 1


def test_killed_readers_leave_nothing_that_slows_the_writer(queue: Path) -> None:
    """Killed while they read, commit and sleep: no wake-ups, mappings, descriptors, locks or segments stay behind."""
    code = """
        import sys
        from chronicle_ffi import Queue
        with Queue.open_subscriber(sys.argv[1], sys.argv[2], waiting="sleep") as reader:
            print("there", flush=True)
            for message in reader.follow():
                reader.commit()
        """

    def held() -> tuple[int, int]:
        maps = Path("/proc/self/maps").read_text()
        return len(os.listdir("/proc/self/fd")), maps.count(str(queue))

    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many([bytes(1000)] * 200)
        writer.sync()  # gives back the descriptors of sealed segments that no sync has covered
        before = held()
        for i in range(6):
            process = python(code, queue, f"reader-{i}")
            assert line(process) == "there"
            for _ in range(20 * i):
                writer.append(b"x")
            process.kill()
            process.communicate()
        writer.append(b"x")  # whoever was asleep is woken in vain, once
        wakes = writer.stats().wakes
        for _ in range(1000):
            writer.append(b"x")
        assert writer.stats().wakes == wakes
        writer.sync()
        assert held() == before
        for i in range(6):
            with Queue.open_subscriber(queue, f"reader-{i}") as reader:
                assert all(message.payload in (bytes(1000), b"x") for message in reader)
                assert reader.position == writer.next_seq
                reader.commit()
        writer.cleanup()
        assert len(list(queue.glob("*.seg"))) == 1


@pytest.mark.parametrize("wait", ["hybrid", "sleep", "spin"])
def test_ctrl_c_ends_a_blocked_wait(queue: Path, wait: str) -> None:
    Queue.open_publisher(queue).close()
    code = """
        import sys
        from chronicle_ffi import Queue
        with Queue.open_subscriber(sys.argv[1], "me", waiting=sys.argv[2]) as reader:
            try:
                print("waiting", flush=True)
                reader.wait()
            except KeyboardInterrupt:
                print("interrupted")
        """
    process = python(code, queue, wait)
    assert line(process) == "waiting"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert finish(process) == "interrupted\n"


def test_ctrl_c_ends_an_append_that_waits_for_room(queue: Path) -> None:
    code = """
        import sys
        from chronicle_ffi import Queue
        with Queue.open_publisher(sys.argv[1], segment_size=1 << 16, max_segments=2, backpressure=1000) as writer:
            with Queue.open_subscriber(sys.argv[1], "slow"):
                try:
                    print("open", flush=True)
                    writer.append_many(b"x" * 1000 for _ in range(1000))
                except KeyboardInterrupt:
                    print("interrupted")
        """
    process = python(code, queue)
    assert line(process) == "open"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert finish(process) == "interrupted\n"
    assert Queue.verify(queue).ok


def test_a_signal_handler_does_not_end_a_wait(queue: Path) -> None:
    Queue.open_publisher(queue).close()
    code = """
        import signal, sys, time
        from chronicle_ffi import Queue
        seen = []
        signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        with Queue.open_subscriber(sys.argv[1]) as reader:
            started = time.monotonic()
            assert not reader.wait(0.3)
            assert time.monotonic() - started >= 0.3
        signal.setitimer(signal.ITIMER_REAL, 0)  # none may come while the interpreter ends
        assert len(seen) > 3
        """
    finish(python(code, queue))


def test_a_file_truncated_under_a_reader_and_a_writer(queue: Path) -> None:
    """SIGBUS becomes an exception; the process lives, and other queues go on working."""
    code = """
        import os, sys
        import chronicle_ffi as c
        from chronicle_ffi import Queue
        path = sys.argv[1]
        writer = Queue.open_publisher(path, segment_size=1 << 20, keeper=False)
        writer.append_many([b"x" * 1000] * 500)
        reader = Queue.open_subscriber(path, "me")
        for _ in range(10):
            reader.next()
        os.truncate(next(__import__("pathlib").Path(path).glob("*.seg")), 65536)
        try:
            while reader.next() is not None:
                pass
            sys.exit("the reader noticed nothing")
        except c.StorageError as error:
            print(type(error).__name__)
        try:
            for _ in range(100000):
                writer.append(b"y" * 1000)
            sys.exit("the writer noticed nothing")
        except c.Poisoned as error:
            print(type(error).__name__)
        try:
            writer.append(b"y")
        except c.Poisoned as error:
            print("still refused")
        writer.close()
        reader.close()
        with Queue.open_publisher(path + "2") as other:
            other.append(b"fine")
        """
    out = finish(python(code, queue))
    assert out.split() == ["StorageError", "Poisoned", "still", "refused"]


def test_faulthandler_still_works(tmp_path: Path) -> None:
    """A SIGBUS outside our mappings reaches the handler that was there before."""
    code = """
        import faulthandler, mmap, os, sys
        faulthandler.enable()
        import chronicle_ffi
        with open(sys.argv[1], "w+b") as file:
            file.truncate(8192)
            mapped = mmap.mmap(file.fileno(), 8192)
            file.truncate(0)
            mapped[5000]
        """
    process = python(code, tmp_path / "x")
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGBUS
    assert "Bus error" in err


FAULTHANDLER = "import faulthandler; faulthandler.enable()"
COME_AND_GO = "(faulthandler.disable(), open_one(), faulthandler.enable(), open_one(), faulthandler.disable())"
BLOCKED = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", FAULTHANDLER),
        (FAULTHANDLER, "faulthandler.disable()"),
        (FAULTHANDLER, "faulthandler.disable(); faulthandler.enable()"),
        ("", "import signal; signal.signal(signal.SIGBUS, signal.SIG_DFL)"),
        ("", "import signal; signal.signal(signal.SIGBUS, lambda *_: None)"),
        ("", f"{FAULTHANDLER}; [{COME_AND_GO} for _ in range(10)]; faulthandler.enable()"),
        ("", BLOCKED),
        (BLOCKED, ""),
    ],
)
def test_the_guard_is_looked_at_at_each_mapping(queue: Path, before: str, after: str) -> None:
    """Others install their handlers after ours, and take them away again."""
    code = f"""
        import os, sys
        {before}
        import chronicle_ffi as c
        from chronicle_ffi import Queue
        def open_one():
            Queue.open_publisher(sys.argv[1], segment_size=1 << 16, keeper=False).close()
        {after}
        with Queue.open_publisher(sys.argv[1], segment_size=1 << 16, keeper=False) as writer:
            writer.append_many([b"x" * 100] * 50)
        reader = Queue.open_subscriber(sys.argv[1])
        assert reader.next()
        os.truncate(os.path.join(sys.argv[1], "%020d.seg" % 0), 4096)
        try:
            reader.seek(0)
            print(reader.next())
        except c.StorageError:
            print("told")
        reader.close()
        """
    assert finish(python(code, queue)) == "told\n"


FOREIGN_FAULT = """
        with open(sys.argv[1], "w+b") as file:
            file.truncate(8192)
            mapped = mmap.mmap(file.fileno(), 8192)
            file.truncate(0)
            mapped[5000]
"""


def test_faults_elsewhere_find_all_handlers_and_end(queue: Path, tmp_path: Path) -> None:
    """faulthandler stands between two of ours: it prints once, and passes the fault on to what was before it."""
    code = (
        """
        import faulthandler, mmap, sys
        from chronicle_ffi import Queue
        faulthandler.enable()
        Queue.open_publisher(sys.argv[2], segment_size=1 << 16).close()
        faulthandler.disable()
        faulthandler.enable()
        writer = Queue.open_publisher(sys.argv[2])
        """
        + FOREIGN_FAULT
    )
    process = python(code, tmp_path / "x", queue)
    try:
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGBUS
    assert err.count("Fatal Python error: Bus error") == 1


def test_handlers_that_come_in_front_again_and_again(queue: Path, tmp_path: Path) -> None:
    """More often than there are entries: then they stay in front, and nothing goes round in a circle."""
    code = (
        """
        import ctypes, mmap, signal, sys
        from chronicle_ffi import Queue
        libc = ctypes.CDLL(None)
        libc.signal.restype = ctypes.c_void_p
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
        chain = []

        def handler(number, mine):
            print(mine, flush=True)
            libc.signal(number, ctypes.c_void_p(chain[mine][1]))  # passes it on to the one before

        for i in range(12):
            call = kind(lambda number, mine=i: handler(number, mine))
            chain.append((call, libc.signal(int(signal.SIGBUS), call)))
            Queue.open_publisher(sys.argv[2], segment_size=1 << 16).close()
        """
        + FOREIGN_FAULT
    )
    process = python(code, tmp_path / "x", queue)
    try:
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGBUS, out + err
    assert out.split() == [str(i) for i in reversed(range(12))]


def test_a_sigbus_that_somebody_sends_is_not_swallowed(queue: Path) -> None:
    code = """
        import os, signal, sys
        signal.signal(signal.SIGBUS, getattr(signal, sys.argv[2]))
        from chronicle_ffi import Queue
        writer = Queue.open_publisher(sys.argv[1], segment_size=1 << 16, keeper=False)
        os.kill(os.getpid(), signal.SIGBUS)
        os._exit(7)
    """
    for before, status in [("SIG_DFL", -signal.SIGBUS), ("SIG_IGN", 7)]:
        process = python(code, queue, before)
        process.communicate(timeout=60)
        assert process.returncode == status, before


def test_the_segment_under_a_reader_is_deleted(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many([b"x" * 1000] * 200)
        with Queue.open_subscriber(queue) as reader:
            reader.next()
            for file in sorted(queue.glob("*.seg"))[:2]:
                file.unlink()
            with pytest.raises(c.SegmentGone):
                list(reader)
            assert 1 < reader.position < Queue.info(queue).oldest_seq


@pytest.mark.parametrize("rest", [b"", bytes(1000), b"\xff" * 1000, b"y" * 100])
def test_a_reader_is_told_when_recovery_cut_off_what_it_had_read(queue: Path, rest: bytes) -> None:
    """Whatever comes to stand where the reader is: zeros, bytes in the middle of other records, or the next record."""
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many([b"x" * 100] * 10)
    with Queue.open_subscriber(queue) as reader:
        assert len(list(reader)) == 10
        with sorted(queue.glob("*.seg"))[0].open("r+b") as file:
            file.seek(8192 + 5 * 160)
            file.write(bytes(5 * 160))  # as if the sectors had never been written
        restart(queue)
        with pytest.warns(c.RecoveryWarning):
            writer = Queue.open_publisher(queue, keeper=False, torn="cut")
        with writer:
            assert writer.next_seq == 5
            writer.append_many([rest] * 30 if rest else [])
            for _ in range(2):
                with pytest.raises(c.HistoryRewritten, match="record 9") as caught:
                    reader.next()
                assert caught.value.seq == 9
            assert reader.position == 10  # an error leaves it where it was
            reader.seek(5)
            assert [message.payload for message in reader] == ([rest] * 30 if rest else [])


def test_a_reader_whose_segment_recovery_moved_away(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many([b"x" * 1000] * 100)
    with Queue.open_subscriber(queue) as reader:
        assert len(list(reader)) == 100
        with sorted(queue.glob("*.seg"))[0].open("r+b") as file:
            file.seek(8192 + 5 * 1056 + 40)
            file.write(b"?")
        restart(queue)
        with pytest.raises(c.Corrupt, match="more|whole records lie behind"):  # 94 records are a lot to lose
            Queue.open_publisher(queue, keeper=False)
        with pytest.warns(c.RecoveryWarning):
            writer = Queue.open_publisher(queue, keeper=False, torn="cut")
        with writer:
            assert writer.recovery.cut_segments == 1
            writer.append_many([b"y" * 2000] * 200)
            with pytest.raises(c.HistoryRewritten):
                reader.next()


def test_a_reader_stays_where_it_is_when_the_next_writer_comes(queue: Path) -> None:
    Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False).close()
    with Queue.open_subscriber(queue) as reader:
        for i in range(5):
            with Queue.open_publisher(queue, keeper=False) as writer:
                assert reader.next() is None
                writer.append(b"%d" % i)
                message = reader.next()
                assert message is not None
                assert (message.seq, message.payload) == (i, b"%d" % i)


def read_and_answer(path: Path, there: Any) -> None:
    """In another process: follow the queue, and append what was read to one of its own."""
    with Queue.open_subscriber(path, "there") as reader, Queue.open_publisher(there) as writer:
        for message in reader.follow(timeout=30):
            writer.append(message.payload, message.type_id)
            if message.type_id:
                reader.commit()
                return


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forking beside the keeper's thread is the point
def test_multiprocessing(queue: Path, tmp_path: Path, method: str) -> None:
    """A child of each kind, started while the parent has handles open, works with its own; errors come back."""
    context: Any = multiprocessing.get_context(method)
    there = tmp_path / "there"
    with Queue.open_publisher(queue) as writer, Queue.open_subscriber(queue, "here") as reader:
        writer.append(b"0")
        child = context.Process(target=read_and_answer, args=(queue, there))
        child.start()
        writer.append_many([b"1", b"2"])
        writer.append(b"3", 1)
        child.join(60)
        assert child.exitcode == 0
        assert [message.payload for message in reader] == [b"0", b"1", b"2", b"3"]
        assert writer.append(b"the parent's handles are as they were") == 4
    with Queue.open_subscriber(there) as answers:
        assert list(answers.payloads()) == [b"0", b"1", b"2", b"3"]
    with context.Pool(1) as pool, pytest.raises(c.QueueNotFound) as caught:
        pool.apply(Queue.info, (tmp_path / "nothing",))
    assert str(tmp_path / "nothing") in str(caught.value)


def test_lists_are_made_while_their_memory_lives(queue: Path) -> None:
    """glibc overwrites what is freed when told to: the structs of C have to be read before that."""
    code = """
        import sys
        from chronicle_ffi import Queue
        with Queue.open_publisher(sys.argv[1], segment_size=1 << 16, keeper=False) as writer:
            writer.append_many([bytes(1000)] * 300)
        names = [f"reader-{i:03}" for i in range(100)]
        for name in names:
            Queue.open_subscriber(sys.argv[1], name).close()
        assert [info.name for info in Queue.readers(sys.argv[1])] == names
        bases = [segment.base_seq for segment in Queue.segments(sys.argv[1])]
        assert len(bases) > 4 and bases == sorted(bases) and bases[0] == 0 and bases[-1] < 300, bases
        """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), str(queue)]
    environment = os.environ | {"MALLOC_PERTURB_": "165"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

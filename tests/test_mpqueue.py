# SPDX-License-Identifier: MIT
"""The façade of multiprocessing.Queue: what is promised to be the same is the same, and what differs is as it says."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue as standard
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import chronicle_ffi as c
from chronicle_ffi.mpqueue import SHARED, Empty, Full, JoinableQueue, Queue
from tests.children import in_child
from tests.damage import lose_power, patch, segment

PATIENCE = 30.0


@pytest.fixture(params=["multiprocessing", "chronicle"])
def either(request: pytest.FixtureRequest) -> Any:
    """A maker of joinable queues: what both do, tests of both say."""
    made: list[Any] = []

    def make(maxsize: int = 0) -> Any:
        made.append(JoinableQueue(maxsize) if request.param == "chronicle" else multiprocessing.JoinableQueue(maxsize))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.join_thread()


def test_as_multiprocessing(either: Any) -> None:
    one = either(2)
    assert one.empty()
    one.put("a")
    one.put({"b": [1, 2]}, timeout=1)
    assert one.qsize() == 2
    assert one.full()
    with pytest.raises(standard.Full):
        one.put_nowait(1)
    with pytest.raises(standard.Full):
        one.put(1, timeout=0.01)
    assert one.get() == "a"
    assert one.get(timeout=PATIENCE) == {"b": [1, 2]}
    with pytest.raises(standard.Empty):
        one.get_nowait()
    with pytest.raises(standard.Empty):
        one.get(timeout=0.01)
    one.task_done()
    one.task_done()
    with pytest.raises(ValueError, match="task_done"):
        one.task_done()
    one.join()
    one.close()
    with pytest.raises(ValueError, match="is closed"):
        one.put(1)
    with pytest.raises(ValueError, match="is closed"):
        one.get()


def work(tasks: Any, results: Any) -> None:
    """A child: of one queue, into a file."""
    with open(results, "a", buffering=1) as out:
        while (item := tasks.get()) is not None:
            out.write(f"{item}\n")
            tasks.task_done()
        tasks.task_done()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_each_item_goes_to_one_of_many(tmp_path: Path, method: str) -> None:
    items, workers = 500, 2
    tasks = JoinableQueue()
    context: Any = multiprocessing.get_context(method)
    processes = [context.Process(target=work, args=(tasks, tmp_path / str(i))) for i in range(workers)]
    for process in processes:
        process.start()
    for n in range(items):
        tasks.put(n)
    tasks.join()
    for _ in processes:
        tasks.put(None)
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0
    tasks.close()
    done = [[int(line) for line in (tmp_path / str(i)).read_text().split()] for i in range(workers)]
    assert sorted(n for one in done for n in one) == list(range(items))
    assert all(one == sorted(one) for one in done)


def test_threads_put_and_get() -> None:
    one = Queue(10)

    def put_all(k: int) -> None:
        for n in range(200):
            one.put((k, n))

    with ThreadPoolExecutor(8) as pool:
        got = [pool.submit(lambda: [one.get(timeout=PATIENCE) for _ in range(200)]) for _ in range(4)]
        for put in [pool.submit(put_all, k) for k in range(4)]:
            put.result()
        found = [pair for get in got for pair in get.result()]
    assert sorted(found) == [(k, n) for k in range(4) for n in range(200)]
    one.close()


def test_items_survive_and_what_was_taken_is_deleted(tmp_path: Path) -> None:
    one = Queue(path=tmp_path / "q", segment_size=1 << 16)
    for n in range(3000):
        one.put(b"%04d" % n + bytes(300))
        if n < 2500:
            assert one.get()[:4] == b"%04d" % n
    one.close()
    assert c.Queue.info(tmp_path / "q" / "items").oldest_seq > 0
    with_others = Queue(path=tmp_path / "q")
    assert with_others.qsize() == 500
    assert [int(with_others.get()[:4]) for _ in range(500)] == list(range(2500, 3000))
    with_others.close()


def test_a_temporary_one_goes_with_its_process(tmp_path: Path) -> None:
    code = """
        from chronicle_ffi.mpqueue import Queue
        import os
        q = Queue()
        q.put(1)
        if os.fork() == 0:
            assert q.get() == 1
            os._exit(0)
        os.wait()
        q.put(2)
        assert q.get() == 2
        """
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], env=environment, check=True)
    assert not list(tmp_path.iterdir())


def test_one_process_puts(tmp_path: Path) -> None:
    one = Queue(path=tmp_path / "q")
    one.put(1)

    def child() -> None:
        if SHARED:
            one.put(2)
        else:
            with pytest.raises(c.WriterAlreadyActive):
                one.put(2)
        assert pickle.loads(pickle.dumps(one)).get() == 1

    in_child(child)
    one.close()
    again = Queue(path=tmp_path / "q")
    again.put(3)
    again.close()


def test_a_child_puts_and_its_parent_gets() -> None:
    """Who makes a queue does not keep others from putting."""
    one = JoinableQueue()

    def child() -> None:
        for n in range(50):
            one.put(n)

    in_child(child)
    assert [one.get(timeout=PATIENCE) for _ in range(50)] == list(range(50))
    one.close()


def test_closed_while_a_thread_gets() -> None:
    one = Queue()
    with ThreadPoolExecutor(1) as pool:
        getting = pool.submit(one.get)
        time.sleep(0.02)
        one.close()
        with pytest.raises(ValueError, match="is closed"):
            getting.result(PATIENCE)


def test_bad_items_and_files(tmp_path: Path) -> None:
    one = Queue(path=tmp_path / "q", segment_size=1 << 16)
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        one.put(threading.Lock())
    with pytest.raises(c.PayloadTooLarge):
        one.put(bytes(1 << 16))
    one.put("fine")
    assert one.get() == "fine"
    one.close()
    (tmp_path / "q" / "state").write_bytes(b"something else entirely.")
    with pytest.raises(c.InvalidArgument, match="another program's"):
        Queue(path=tmp_path / "q")


def test_killed_while_they_get(tmp_path: Path) -> None:
    """Whoever is killed takes one item along at most, and stops nobody."""
    code = """
        import sys
        from chronicle_ffi.mpqueue import Queue
        q = Queue(path=sys.argv[1])
        while True:
            print(q.get(), flush=True)
        """
    one = Queue(path=tmp_path / "q")
    items = 1500
    for n in range(items):
        one.put(n)
    found: list[int] = []
    kills = 3
    for _ in range(kills):
        command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "q")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            found.append(int(process.stdout.readline()))
            process.send_signal(signal.SIGKILL)
            found += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    while not one.empty():
        found.append(one.get(timeout=PATIENCE))
    assert found == sorted(set(found))
    assert items - kills <= len(found) <= items
    one.close()


def test_ctrl_c_ends_a_get(tmp_path: Path) -> None:
    code = """
        import sys
        from chronicle_ffi.mpqueue import Queue
        q = Queue(path=sys.argv[1])
        print("gets", flush=True)
        try:
            q.get()
        except KeyboardInterrupt:
            q.put(1)
            print(q.get(), flush=True)
        """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "q")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "gets\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "1\n"


def test_killed_while_it_puts(tmp_path: Path) -> None:
    """What `put` returned for is there, once and in order, and the next one puts on; with `maxsize`, so with a lock."""
    code = """
        import sys
        from chronicle_ffi.mpqueue import Queue
        q = Queue(1000000, path=sys.argv[1])
        begin = q.qsize()
        print(begin, flush=True)
        for n in range(begin, 1000000):
            q.put(n)
            print(n + 1, flush=True)
        """
    one = Queue(path=tmp_path / "q")
    for _ in range(3):
        command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "q")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(50)]
            process.kill()
            lines += process.stdout.read().splitlines(keepends=True)
            told = int([line for line in lines if line.endswith("\n")][-1])
        assert told <= one.qsize() <= told + 1
    found = [one.get() for _ in range(one.qsize())]
    assert found == list(range(len(found)))
    one.close()


def test_after_a_loss_of_power(tmp_path: Path) -> None:
    """Items were handed out that never reached the disk. What is put in their place is not lost."""
    one = JoinableQueue(path=tmp_path / "q")
    for n in range(10):
        one.put(n)
        assert one.get() == n
        one.task_done()
    one.close()
    lose_power(tmp_path / "q" / "items", 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", c.RecoveryWarning)
        again = JoinableQueue(path=tmp_path / "q")
        for n in range(20, 28):
            again.put(n)
        assert [again.get(timeout=PATIENCE) for _ in range(8)] == list(range(20, 28))
        assert again.empty()
        for _ in range(8):
            again.task_done()
        with pytest.raises(ValueError, match="task_done"):
            again.task_done()
        again.join()
        again.close()
    for lost in (bytes(24), b""):  # as the file may be after another one
        (tmp_path / "q" / "state").write_bytes(lost)
        third = Queue(path=tmp_path / "q")
        assert third.qsize() == 13
        assert third.get() == 0
        third.close()


def test_a_damaged_item_is_told_once(tmp_path: Path) -> None:
    one = Queue(path=tmp_path / "q")
    for n in range(3):
        one.put(n)
    patch(segment(tmp_path / "q" / "items"), 8192 + 64 + 34, b"?")
    assert one.get() == 0
    with pytest.raises(c.Corrupt):
        one.get()
    assert one.get() == 2
    assert one.empty()
    one.close()


def test_a_full_disk(small_disk: Path) -> None:
    """`put` says so, `get` goes on, and so does `put` when there is room."""
    one = Queue(path=small_disk / "q", segment_size=1 << 16)
    one.put("first")
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))
    put = 0
    with pytest.raises(c.NoSpace):
        while True:
            one.put(bytes(10_000))
            put += 1
    assert one.get() == "first"
    ballast.unlink()
    one.put("last")
    assert [one.get() for _ in range(put + 1)][-1] == "last"
    one.close()


def test_a_put_that_waits_when_it_is_closed(tmp_path: Path) -> None:
    one = Queue(1, path=tmp_path / "q")
    one.put(1)
    with ThreadPoolExecutor(1) as pool:
        putting = pool.submit(one.put, 2)
        time.sleep(0.02)
        one.close()
        with pytest.raises(ValueError, match="is closed"):
            putting.result(PATIENCE)
    assert not [fd for fd in os.listdir("/proc/self/fd") if str(tmp_path) in link_of(fd)]


def link_of(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def test_full_and_empty_are_those_of_the_standard_library() -> None:
    assert (Full, Empty) == (standard.Full, standard.Empty)

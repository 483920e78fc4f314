# SPDX-License-Identifier: MIT
"""One measurement in a process of its own: ``python -m bench.peers.worker JOB``, JSON in, a last line of JSON out."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.peers.interface import GROUP, TASKS, load
from bench.peers.measure import Result, measure

CALIBRATED_SECONDS = 0.04  # long enough to tell the rate
AROUND_SECONDS_MAX = 0.5  # filling and comparing should not take longer, however fast the reading is
FIRST_RECORDS = 200
CHUNKS_MIN = 2
TRIPS_MIN = 2000  # percentiles need some, unless that would take longer than TRIPS_SECONDS_MAX
TRIPS_SECONDS_MAX = 0.6


@dataclass(frozen=True)
class Job:
    """`records` 0 means: find out how many make a run of `seconds`."""

    contestant: str
    task: str
    size: int
    place: str
    records: int = 0
    seconds: float = 0.2
    records_max: int = 1 << 62

    def text(self) -> str:
        return json.dumps(asdict(self))


def calibrate(job: Job) -> Result:
    """Run with more and more records until the rate is known; `records` of the result is what a run should have."""
    task = TASKS[job.task]
    kind = load(job.contestant)
    base = Path(job.place)
    count = min(FIRST_RECORDS, job.records_max)
    while True:
        (base / str(count)).mkdir()
        os.chdir(base / str(count))
        begin = time.perf_counter()
        result = measure(kind, task, job.size, count)
        around = time.perf_counter() - begin - result["seconds"]
        if result["seconds"] >= CALIBRATED_SECONDS or around >= AROUND_SECONDS_MAX or count == job.records_max:
            break
        count = min(count * 10, job.records_max)
    rate = count / max(result["seconds"], 1e-9)
    wanted = int(min(rate * job.seconds, count / around * AROUND_SECONDS_MAX))
    if task.kind == "trip":
        wanted = max(wanted, min(TRIPS_MIN, int(rate * TRIPS_SECONDS_MAX)))
    elif task.batches:
        chunk = GROUP if task.durable else kind.batch
        wanted = max(wanted // chunk, CHUNKS_MIN) * chunk
    return {"records": max(min(wanted, job.records_max), 10), "seconds": result["seconds"]}


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    if job.records:
        os.chdir(job.place)
        result = measure(load(job.contestant), TASKS[job.task], job.size, job.records)
    else:
        result = calibrate(job)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

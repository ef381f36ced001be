"""Time counts only while the process could run."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from app.inference.clock import MAX_TICK_SECONDS, TICK_SECONDS, ProcessClock, read_cpu_waits
from tests.conftest import ROOT
from tests.waiting import HUNG_SECONDS

pytestmark = pytest.mark.slow


class Machine:
    """A fake that says what time it is and how long each thread has waited for a processor."""

    def __init__(self) -> None:
        self.seconds, self.waits = 0.0, {"1": 0.0, "2": 0.0}

    def clock(self) -> ProcessClock:
        return ProcessClock(lambda: self.seconds, lambda: dict(self.waits))

    def pass_time(self, clock: ProcessClock, seconds: float, starved: float = 0.0) -> None:
        """Ticks in their time, while one thread waits for its share of it."""
        for _ in range(round(seconds / TICK_SECONDS)):
            self.seconds += TICK_SECONDS
            self.waits["2"] += starved * TICK_SECONDS
            clock.tick()


def test_time_of_a_process_that_runs_is_the_time() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.pass_time(clock, 30)
    assert clock() == pytest.approx(30)


@pytest.mark.parametrize("pause", [3, 20, 3600])
def test_pause_does_not_count_however_long(pause: float) -> None:
    machine = Machine()
    clock = machine.clock()
    machine.seconds += pause
    clock.tick()
    assert clock() == MAX_TICK_SECONDS


def test_starved_process_ages_by_what_it_got() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.pass_time(clock, 100, starved=0.95)
    assert clock() == pytest.approx(5)
    machine.pass_time(clock, 100, starved=1.2)
    assert clock() == pytest.approx(5)


def test_thread_that_begins_or_ends_changes_nothing() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.waits["3"] = 1000.0
    machine.pass_time(clock, 1)
    del machine.waits["2"]
    machine.seconds += TICK_SECONDS
    clock.tick()
    assert clock() == pytest.approx(1 + TICK_SECONDS)


def test_kernel_without_that_account_leaves_the_pauses() -> None:
    machine = Machine()
    machine.waits = {}
    clock = ProcessClock(lambda: machine.seconds, lambda: {})
    for step in (TICK_SECONDS, 60.0, TICK_SECONDS):
        machine.seconds += step
        clock.tick()
    assert clock() == pytest.approx(2 * TICK_SECONDS + MAX_TICK_SECONDS)


STARVED = """
import os, threading, time
from app.inference.clock import TICK_SECONDS, ProcessClock
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
clock, began = ProcessClock(), time.monotonic()
def compute():
    while True:
        sum(range(1000))
threading.Thread(target=compute, daemon=True).start()
print("begun", flush=True)
while time.monotonic() < began + 4:
    time.sleep(TICK_SECONDS)
    clock.tick()
print(clock(), flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not read_cpu_waits(), reason="this kernel keeps no account of waits")
def test_process_that_shares_its_processor_with_three_others_ages_more_slowly() -> None:
    core = min(os.sched_getaffinity(0))
    hog = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    hogs = [subprocess.Popen([sys.executable, "-c", hog]) for _ in range(3)]
    try:
        ran = subprocess.run(
            [sys.executable, "-c", STARVED], cwd=ROOT, capture_output=True, text=True, timeout=HUNG_SECONDS
        )
    finally:
        for each in hogs:
            each.kill()
            each.wait()
    assert 0 < float(ran.stdout.split()[-1]) < 3


PAUSED = """
import time
from app.inference.clock import ProcessClock, Ticker
clock = ProcessClock()
Ticker(clock, lambda: None).start()
print("ready", flush=True)
input()
print(clock(), flush=True)
"""


def test_stopped_process_does_not_age() -> None:
    command = [sys.executable, "-c", PAUSED]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        began = time.monotonic()
        running.send_signal(signal.SIGSTOP)
        time.sleep(5)
        running.send_signal(signal.SIGCONT)
        age = float(running.communicate("\n", timeout=HUNG_SECONDS)[0])
        assert age <= time.monotonic() - began - 5 + 2 * MAX_TICK_SECONDS


def test_waits_are_told_for_each_thread() -> None:
    waits = read_cpu_waits()
    if waits:
        assert str(threading.get_native_id()) in waits

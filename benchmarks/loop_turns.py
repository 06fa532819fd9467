#!/usr/bin/env python3
"""Measure what looking at a running loop costs each of its turns.

    python benchmarks/loop_turns.py [--rounds 15] [--seconds 1.0] [--markdown OUT.md]

One process, one loop at a time. Each round runs the same work without and with the monitor (calls
that hold the loop, and the forecast), in changing order, and counts the turns in equal processor
time. The figures are medians of the differences between the two runs of a round.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from tightship.blocking import Blocking
from tightship.forecast import Forecast
from tightship.loopwatch import LoopWatch
from tightship.model import Owner

TEST = Owner("benchmark")
LOOPS: list[Any] = []


async def turns(number: int) -> None:
    """One task that gives way again and again: nothing but turns."""
    for _ in range(number):
        await asyncio.sleep(0)


async def crowd(number: int) -> None:
    """A hundred tasks at once: few turns with many steps."""
    await asyncio.gather(*(turns(number // 100) for _ in range(100)))


async def steps(number: int) -> None:
    """Turns that each work for a while, and so are often seen at work, and asked."""
    for _ in range(number // 50):
        sum(range(5000))
        await asyncio.sleep(0)


WORK: dict[str, Callable[[int], Coroutine[Any, Any, None]]] = {
    "one task, empty turns": turns,
    "a hundred tasks": crowd,
    "turns of about 90 us": steps,
}


def timed(factory: Callable[[], Any], work: Callable[[int], Any], number: int) -> float:
    """Return the processor seconds, of all threads, that the work took."""
    loop = factory()
    LOOPS[:] = [loop]
    try:
        before = time.process_time()
        loop.run_until_complete(work(number))
        return time.process_time() - before
    finally:
        LOOPS.clear()
        loop.close()


def watched(factory: Callable[[], Any], work: Callable[[int], Any], number: int) -> float:
    def fault(part: str, exc: BaseException) -> None:
        raise exc

    watch = LoopWatch(lambda: TEST, lambda: LOOPS, fault)
    watch.parts.append(Blocking(lambda _: ("note", 0.1), lambda _: None, watch.lateness, fault))
    forecast = Forecast(fault)
    forecast.on_stuck = lambda loop: None
    watch.parts.append(forecast)
    watch.start()
    try:
        return timed(factory, work, number)
    finally:
        watch.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run, about")
    parser.add_argument("--markdown", type=Path, metavar="OUT.md")
    options = parser.parse_args()
    factories: dict[str, Callable[[], Any]] = {"asyncio": asyncio.SelectorEventLoop}
    try:
        import uvloop
    except ImportError:
        pass
    else:
        factories["uvloop"] = uvloop.new_event_loop
    lines = [
        "| Loop | Work | Bare, us per step | With the monitor, us more | Ratio |",
        "|---|---|---:|---:|---:|",
    ]
    for name, factory in factories.items():
        for title, work in WORK.items():
            number = 20_000
            number = int(number * options.seconds / max(0.001, timed(factory, work, number)))
            count = number // 50 if work is steps else number
            bare, more = [], []
            for at in range(options.rounds):
                order = (timed, watched) if at % 2 else (watched, timed)
                took = {run: run(factory, work, number) for run in order}
                bare.append(took[timed] / count * 1e6)
                more.append((took[watched] - took[timed]) / count * 1e6)
            low, middle, high = statistics.quantiles(more, n=4, method="inclusive")
            base = statistics.median(bare)
            lines.append(
                f"| {name} | {title} | {base:.3f} | {middle:+.3f} ({low:+.3f} to {high:+.3f}) "
                f"| {1 + middle / base:.3f} |"
            )
            print(lines[-1], file=sys.stderr)
    text = "\n".join(lines)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

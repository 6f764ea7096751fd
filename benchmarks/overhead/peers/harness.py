"""What every peer's script shares: one warm-up, then one measured run, told as one JSON line.

Runs in the peer's own environment: standard library only. Arguments: BASE_URL STEPS SERVER_COMMAND…
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable


def measure(session: Callable[[str, int, list[str], "Measured"], Awaitable[None]]) -> None:
    base_url, steps, *server = sys.argv[1:]
    measured = Measured(int(steps))
    asyncio.run(session(base_url, int(steps), server, measured))
    sys.stdout.write(json.dumps(measured.found) + "\n")


class Measured:
    def __init__(self, steps: int) -> None:
        self.found: dict[str, float] = {}
        self._steps = steps

    async def both(self, run: Callable[[], Awaitable[object]]) -> None:
        """Run once to warm up and once to measure; the run's result must be the scripted answer."""
        for _ in range(2):
            cpu, started = _cpu_seconds(), time.perf_counter()
            result = await run()
            wall, used = time.perf_counter() - started, _cpu_seconds() - cpu
            if "all added" not in str(result):
                raise SystemExit(f"the run came to {result!r}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.found = {"wall_ms": 1e3 * wall / self._steps, "cpu_ms": 1e3 * used / self._steps, "peak_mb": peak}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

"""What the service survives, as tables: kill -9 of every part under mixed load, and other faults.

Scenarios are chosen by name, all by default. The exit status is 1 where a promise is broken.
"""

import argparse
import functools
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from models.core.registry import Registry
from tests.e2e.stack import Stack
from tests.resilience import backlog, clock, connections, kills, resources, soak, trial, upload
from tests.resilience.answers import ask_beforehand
from tests.resilience.faults import ROLES

OPTIONS = {
    "--minutes": (float, 10, "length of the random kills"),
    "--soak-minutes": (float, 60, "length of the soak"),
    "--times": (int, 5, "kills of each part, one at a time"),
    "--seed": (int, 0, "of what is random in the load and the kills"),
}
# On a stack of their own.
APART = {
    "disk": resources.full_disk,
    "clock": clock.clock,
    "backlog": lambda: backlog.ten_thousand_jobs(Registry()),
    "upload": upload.two_gibibytes,
}
# On one stack, one after the other, with the answers that it gave beforehand.
TOGETHER = {
    role.lower().replace(" ", "-"): lambda stack, asked, options, role=role: kills.kill_one_role(
        stack, asked, role, options.times
    )
    for role in ROLES
} | {
    "random": lambda stack, asked, options: kills.kill_at_random(stack, asked, options.minutes, options.seed),
    "redis-memory": lambda stack, asked, _: resources.full_redis(stack, asked),
    "redis-silent": lambda stack, asked, _: resources.silent_redis(stack, asked),
    "slow-clients": lambda stack, asked, _: connections.slow_clients(stack, asked),
    "half-open": lambda stack, asked, _: connections.half_open(stack, asked),
    "soak": lambda stack, asked, options: soak.soak(stack, asked, options.soak_minutes),
}


def main():
    names = [*APART, *TOGETHER]
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(names)}; all by default")
    for name, (kind, default, what) in OPTIONS.items():
        parser.add_argument(name, type=kind, default=default, help=f"{what} ({default})")
    options = parser.parse_args()
    if unknown := set(options.scenarios) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    chosen = options.scenarios or names
    found = [_shown(_tried(name, APART[name])) for name in APART if name in chosen]
    if together := [name for name in TOGETHER if name in chosen]:
        with one_stack() as (stack, asked):
            found += [
                _shown(_tried(name, functools.partial(TOGETHER[name], stack, asked, options))) for name in together
            ]
    for report in _tables(found):
        print(f"\n{report.markdown()}", flush=True)
    return int(any(_broken(result) for result in found))


@contextmanager
def one_stack():
    """A running service and what it answers while nothing disturbs it."""
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder) / "home").start()
        try:
            stack.wait_ready()
            with stack.client() as api:
                asked = ask_beforehand(api)
            yield stack, asked
        finally:
            stack.stop()
            assert stack.gone(10) == []


def _tried(name, scenario):
    try:
        return scenario()
    except trial.NotPossible as error:
        return trial.Trial(name, "", skipped=str(error))


def _broken(result):
    return result.broken if isinstance(result, trial.Trial) else result.broken()


def _tables(found):
    trials = [result for result in found if isinstance(result, trial.Trial)]
    outcomes = [result for result in found if not isinstance(result, trial.Trial)]
    return ([kills.report(outcomes)] if outcomes else []) + ([trial.report(trials)] if trials else [])


def _shown(result):
    """The result, after its own row was printed: a run takes long."""
    for report in _tables([result]):
        print(f"{report.markdown()}\n", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())

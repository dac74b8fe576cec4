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


def scenarios(options):
    """Scenarios on one stack, which get it and the answers asked beforehand, and those with a stack of their own."""
    shared = {
        role.lower().replace(" ", "-"): functools.partial(kills.kill_one_role, role=role, times=options.times)
        for role in ROLES
    }
    shared |= {
        "random": functools.partial(kills.kill_at_random, minutes=options.minutes, seed=options.seed),
        "redis-memory": resources.full_redis,
        "redis-silent": resources.silent_redis,
        "slow-clients": connections.slow_clients,
        "half-open": connections.half_open,
        "soak": functools.partial(soak.soak, minutes=options.soak_minutes),
    }
    own = {
        "disk": resources.full_disk,
        "clock": clock.clock,
        "backlog": functools.partial(backlog.ten_thousand_jobs, Registry()),
        "upload": upload.two_gibibytes,
    }
    return shared, own


def main():
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    for name, (kind, default, what) in OPTIONS.items():
        parser.add_argument(name, type=kind, default=default, help=f"{what} ({default})")
    options = parser.parse_args()
    shared, own = scenarios(options)
    chosen = options.scenarios or [*own, *shared]
    if unknown := set(chosen) - set(shared) - set(own):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join([*shared, *own])}")
    found = [_shown(_own(name, own[name])) for name in own if name in chosen]
    if wanted := [name for name in shared if name in chosen]:
        with one_stack() as (stack, asked):
            found += [_shown(_on(stack, asked, name, shared[name])) for name in wanted]
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


def _own(name, scenario):
    try:
        return scenario()
    except trial.NotPossible as error:
        return trial.Trial(name, "", skipped=str(error))


def _on(stack, asked, name, scenario):
    return _own(name, functools.partial(scenario, stack, asked))


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

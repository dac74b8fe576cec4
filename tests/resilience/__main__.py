"""``python -m tests.resilience``: what the service survives, as tables; exit status 1 where a promise is broken."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.e2e.stack import Stack
from tests.resilience import kills
from tests.resilience.answers import ask_beforehand
from tests.resilience.faults import ROLES


def main():
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", default=["kills", "random"])
    parser.add_argument("--minutes", type=float, default=10, help="length of the random kills (10)")
    parser.add_argument("--times", type=int, default=5, help="kills of each part, one at a time (5)")
    parser.add_argument("--roles", nargs="*", default=ROLES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory() as home:
        stack = Stack(Path(home) / "home").start().wait_ready()
        with stack.client() as api:
            asked = ask_beforehand(api)
        print("asked", flush=True)
        try:
            if "kills" in options.scenarios:
                for role in options.roles:
                    outcomes.append(kills.kill_one_role(stack, asked, role, options.times))
                    print(kills.report(outcomes[-1:]).markdown(), flush=True)
            if "random" in options.scenarios:
                outcomes.append(kills.kill_at_random(stack, asked, options.minutes, options.seed))
                print(kills.report(outcomes[-1:]).markdown(), flush=True)
        finally:
            Path("/tmp/chaosx/story").write_text(stack.story())
            stack.stop()
            print(stack.gone(5))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tests.benchmarks [NAME ...] [--quick] [--write]``: every ``bench_NAME.py`` here, or those named.

Each has ``run(quick: bool) -> list[Report]``. ``--write`` puts the tables into README.md.
"""

import argparse
import importlib
import sys
from pathlib import Path

from tests.benchmarks.report import write_readme


def main():
    names = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--write", action="store_true", help="write the tables into README.md")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    reports = []
    for name in options.names or names:
        for report in importlib.import_module(f"tests.benchmarks.bench_{name}").run(quick=options.quick):
            print(report.markdown(), flush=True)
            print(flush=True)
            reports.append(report)
    if options.write:
        write_readme(reports)
    return 0


if __name__ == "__main__":
    sys.exit(main())

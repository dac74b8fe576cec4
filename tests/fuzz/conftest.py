"""The table that a fuzz run prints: what every route answered."""

from collections import Counter

import pytest

ANSWERS = pytest.StashKey[Counter]()


def pytest_configure(config):
    config.stash[ANSWERS] = Counter()


@pytest.fixture(scope="session")
def answers(request):
    """How often each route answered with each status, by ``(operation, status)``."""
    return request.config.stash[ANSWERS]


def pytest_terminal_summary(terminalreporter, config):
    answers = config.stash[ANSWERS]
    if not answers:
        return
    statuses = sorted({status for _, status in answers})
    operations = sorted({operation for operation, _ in answers})
    width = max(map(len, operations))
    terminalreporter.section(f"fuzz: {sum(answers.values())} cases")
    terminalreporter.write_line(" " * width + "".join(f"{status:>6}" for status in statuses))
    for operation in operations:
        counts = "".join(f"{answers[operation, status] or '':>6}" for status in statuses)
        terminalreporter.write_line(f"{operation:<{width}}{counts}")

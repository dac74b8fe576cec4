"""The lines of answered requests: one each, written together behind the answers, in the format that was asked for."""

import asyncio
import io

import orjson
import pytest

from service import logs
from service.settings import Settings


@pytest.fixture
def stream():
    yield io.StringIO()
    logs.configure(Settings())


def lines(stream, count=1):
    async def run():
        for number in range(count):
            logs.requests.add({"request_id": f"req_{number}", "status": 200})
        before = stream.getvalue()
        await asyncio.sleep(0)
        return before, stream.getvalue()

    return asyncio.run(run())


def test_lines_of_one_pass_are_written_at_its_end(stream):
    logs.configure(Settings(log_format="json"), stream)
    before, after = lines(stream, 3)
    assert before == ""
    written = [orjson.loads(line) for line in after.splitlines()]
    assert [line["request_id"] for line in written] == ["req_0", "req_1", "req_2"]
    for line in written:
        assert line.items() >= {"event": "request", "level": "info", "status": 200}.items()
        assert line["timestamp"].endswith("Z")


def test_a_person_reads_them_too(stream):
    logs.configure(Settings(log_format="pretty"), stream)
    assert "req_0" in lines(stream)[1]


def test_a_higher_level_leaves_them_out(stream):
    logs.configure(Settings(log_format="json", log_level="warning"), stream)
    assert lines(stream)[1] == ""

from starlette.requests import Request
from structlog.testing import capture_logs

from service.problems import answer_exception


def test_the_request_id_of_an_internal_error_names_it_in_the_logs():
    request = Request({"type": "http", "path": "/v1/x", "headers": [], "state": {"request_id": "req_1"}})
    with capture_logs() as lines:
        answer = answer_exception(RuntimeError("a secret"), request)
    assert (answer.status_code, b"a secret" in answer.body, b"req_1" in answer.body) == (500, False, True)
    assert [line["request_id"] for line in lines] == ["req_1"]

"""A store that does not answer opens no door: who asks without a valid key is not let in, whatever was known before."""

import asyncio

import httpx
import pytest

from service.app import create_app
from service.auth import REFRESH_S
from service.keys import KeyStore
from service.settings import Settings


@pytest.fixture
def app(tmp_path):
    return create_app(Settings(home=tmp_path, backend="in-process", redis_url="redis://127.0.0.1:1/0"))


@pytest.fixture
def secret(app):
    return KeyStore(app.state.services.store).create("mine", ["infer"])[1]


def cut(app, monkeypatch):
    """Let the store refuse, and what is known of it grow old."""

    def refuse(*args, **options):
        raise OSError(5, "Input/output error")

    for name in ("info", "ls", "cat_file"):
        monkeypatch.setattr(app.state.services.store._fs, name, refuse)
    app.state.authenticator._refreshed -= REFRESH_S


def ask(app, *secrets):
    """The statuses of a look at a model with each key, one after the other; None sends none."""

    async def run():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as http:
            headers = [{} if secret is None else {"Authorization": f"Bearer {secret}"} for secret in secrets]
            return [(await http.get("/v1/models/robust-ot/figures", headers=each)).status_code for each in headers]

    return asyncio.run(run())


def test_from_the_start(app, secret, monkeypatch):
    cut(app, monkeypatch)
    assert ask(app, None, secret, "dn_guess") == [503, 503, 503]


def test_later_the_known_keys_hold_and_no_others(app, secret, monkeypatch):
    before = ask(app, secret, None, "dn_guess")
    assert before == [200, 401, 401]
    cut(app, monkeypatch)
    assert ask(app, secret, None, "dn_guess") == before

"""The URL of Sentinels: what it says, and that what it hides stays hidden."""

import pytest
from pydantic import ValidationError

from service.settings import Settings
from workers.sentinels import parse_sentinels


def test_a_whole_url():
    url = "redis+sentinel://ann:p%40ss@one:1,[::1]:2,three/group/4?sentinel_password=w%2Fatch&client_name=me"
    found = parse_sentinels(url)
    assert found.hosts == (("one", 1), ("::1", 2), ("three", 26379))
    assert found.service == "group"
    assert found.server == {"username": "ann", "password": "p@ss", "db": 4, "client_name": "me"}
    assert found.own == {"password": "w/atch"}


def test_tls_holds_for_the_sentinels_too():
    found = parse_sentinels("rediss+sentinel://h/group?ssl_ca_certs=/ca.pem&ssl_check_hostname=no")
    assert found.server == {"ssl": True, "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False, "db": 0}
    assert found.own == {"ssl": True, "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False}


@pytest.mark.parametrize("url", ["redis://h:1/0", "rediss://h", "unix:///a/b?db=1"])
def test_other_urls_are_not_of_sentinels(url):
    assert parse_sentinels(url) is None
    assert Settings(redis_url=url).redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:secret@h:1",
        "redis+sentinel://:secret@/group",
        "redis+sentinel://:secret@h:port/group",
        "redis+sentinel://:secret@h/group/db",
        "redis+sentinel:/:secret@h/group",
        "http://:secret@h",
        "redis://:secret@h:port",
        "redis://:secret@h?nonsense=1",
        "redis://:secret@h?ssl_ca_certs=/ca.pem",
        "redis+sentinel://:secret@h/group?ssl_certfile=/own.pem",
        "rediss://:secret@h?ssl_cert_reqs=perhaps",
    ],
)
def test_what_is_not_valid_is_refused_without_its_password(url):
    with pytest.raises(ValidationError) as refused:
        Settings(redis_url=url)
    assert "redis_url" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_urls_with_passwords_are_not_shown():
    shown = repr(Settings(redis_url="redis://:secret@h", store_url="s3://key:secret@bucket", api_keys="dn_secret"))
    assert "secret" not in shown

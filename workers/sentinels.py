"""The URL of a Redis that Sentinels watch: ``redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/SERVICE[/DB]``.

``rediss+sentinel`` means TLS to both the Sentinels and the servers. The query may hold ``sentinel_username`` and
``sentinel_password`` beside what the client library knows, e.g. ``ssl_ca_certs``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from redis.connection import Connection, SSLConnection, parse_url
from redis.exceptions import RedisError

PORT = 26379
_URL = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?:(?P<login>[^@/?]*)@)?(?P<hosts>[^/?]*)/?(?P<path>[^?]*)\??(?P<query>.*)"
)
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True)
class Sentinels:
    """Whom to ask for the master, and how to speak with both.

    Attributes:
        hosts: addresses of the Sentinels.
        service: what the Sentinels call the group of servers.
        server: options of connections to the master.
        own: options of connections to the Sentinels.
    """

    hosts: tuple[tuple[str, int], ...]
    service: str
    server: dict[str, Any]
    own: dict[str, Any]


def parse_sentinels(url: str) -> Sentinels | None:
    """What ``url`` says, or None where it is no URL of Sentinels.

    Raises:
        ValueError: it is one, and not valid; never shows the URL, which holds passwords.
    """
    if "+sentinel:" not in url.partition("//")[0]:
        return None
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError("expected redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB")
    service, _, db = found["path"].partition("/")
    hosts = [_HOST.fullmatch(part.strip()) for part in found["hosts"].split(",")]
    if not service or (db and not db.isdigit()) or not all(hosts):
        raise ValueError("expected redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB")
    query = dict(parse_qsl(found["query"], keep_blank_values=True))
    own = {name: query.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in query}
    login = "" if found["login"] is None else f"{found['login']}@"
    server: dict[str, Any] = parse_url(f"{found['scheme']}://{login}sentinel/{db or 0}?{urlencode(query)}")  # type: ignore[no-untyped-call]
    del server["host"]
    tls = {name: value for name, value in server.items() if name.startswith("ssl_")}
    if server.pop("connection_class", None) is SSLConnection:
        server["ssl"] = tls["ssl"] = True
    return Sentinels(
        tuple((host["name"].strip("[]"), int(host["port"] or PORT)) for host in hosts if host),
        service,
        server,
        own | tls,
    )


def check_redis_url(url: str) -> None:
    """Check the form of a Redis' URL, and that its query holds only what such a connection has.

    Raises:
        ValueError: it is not valid; never shows the URL.
    """
    sentinels = parse_sentinels(url)
    options: dict[str, Any] = parse_url(url) if sentinels is None else {**sentinels.server}  # type: ignore[no-untyped-call]
    kind = options.pop("connection_class", SSLConnection if options.pop("ssl", False) else Connection)
    try:
        kind(**options)  # connects to nothing yet
    except (TypeError, RedisError) as error:
        named = re.search(r"argument '(\w+)'", str(error))
        what = f"has no option {named[1]}" if named else "has another value for an option"
        raise ValueError(f"a connection by this scheme {what}") from None

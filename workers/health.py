"""``python -m workers.health``: whether a worker of this host lives, for a container's health check."""

from __future__ import annotations

import socket
import sys
import time
from typing import Any, cast

from rq.utils import as_text, utcparse
from rq.worker import Worker

from service.settings import Settings
from workers.connect import prompt
from workers.stats import WORKER_SEEN_S


def healthy(url: str, host: str) -> bool:
    """Whether the queue at ``url`` heard of a worker of ``host`` within the last 30 seconds.

    Raises:
        redis.RedisError: the queue cannot be asked.
    """
    client, now = cast(Any, prompt(url)), time.time()
    for key in client.smembers(Worker.redis_workers_keys):
        name, seen, death = client.hmget(key, ["hostname", "last_heartbeat", "death"])
        alive = seen and not death and now - utcparse(as_text(seen)).timestamp() < WORKER_SEEN_S
        if alive and as_text(name) == host:
            return True
    return False


if __name__ == "__main__":
    url = Settings().redis_url
    sys.exit(0 if url and healthy(url, socket.gethostname()) else 1)

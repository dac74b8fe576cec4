"""The worker program: one queue, one job at a time, one janitor."""

from __future__ import annotations

import logging
import threading

from models.core.store import BlobStore
from service.logs import configure
from service.settings import Settings
from workers.connect import AWAY, patient
from workers.janitor import Janitor
from workers.records import Records
from workers.worker import make_worker

log = logging.getLogger("deepnight.worker")


def run_worker(settings: Settings) -> int:
    """Work until a signal stops it; the exit status.

    The first SIGTERM or SIGINT lets the running job end, for ``drain_s`` seconds at most; a second one, more than a
    second later, kills it. A killed job is run again by another worker.
    """
    configure(settings)
    if settings.redis_url is None:
        log.error("DEEPNIGHT_REDIS_URL is not set: a worker needs a queue")
        return 2
    stopped = threading.Event()
    try:
        worker = make_worker(settings, settings.redis_url)
        janitor = Janitor(
            settings,
            Records(patient(settings.redis_url, decode=True)),
            patient(settings.redis_url, decode=False),
            BlobStore(settings.store),
        )
        threading.Thread(target=janitor.run, args=[stopped], name="janitor", daemon=True).start()
        log.info("worker %s waits for jobs", worker.name)
        worker.work(logging_level="WARNING")
    except SystemExit:
        return 0
    except AWAY as error:
        log.error("the queue cannot be reached: %s", error)  # noqa: TRY400 - a traceback says nothing more
        return 1
    finally:
        stopped.set()
    return 0 if worker.stopping else 1

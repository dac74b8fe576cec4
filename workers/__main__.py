"""``python -m workers``: a worker with the settings of the environment."""

import sys

from service.settings import Settings
from workers.main import run_worker

sys.exit(run_worker(Settings()))

"""A typed client of the HTTP interface, synchronous and asynchronous.

>>> from deepnight.client import Client
>>> with Client("http://127.0.0.1:8000") as deepnight:
...     vectors = deepnight.embed("align-uniform", pictures)  # float32 (N, D)
...     dataset = deepnight.upload("noisy.npz")
...     job = deepnight.wait(deepnight.submit("mislabeled-detection", dataset=dataset))
...     ranking = deepnight.frame(job)  # pandas
"""

from deepnight.client.answers import (
    Artifact,
    Candidate,
    Classification,
    Coupling,
    Dataset,
    Distance,
    Event,
    Job,
    Model,
    Pictures,
    Progress,
)
from deepnight.client.client import AsyncClient, Client
from deepnight.client.errors import ApiError, FieldError, JobFailedError

__all__ = [
    "ApiError",
    "Artifact",
    "AsyncClient",
    "Candidate",
    "Classification",
    "Client",
    "Coupling",
    "Dataset",
    "Distance",
    "Event",
    "FieldError",
    "Job",
    "JobFailedError",
    "Model",
    "Pictures",
    "Progress",
]

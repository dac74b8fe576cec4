"""BentoML with its adaptive batching, one worker: ``bento.py PORT``. A batchable route takes a list of inputs."""

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
from embedding import Encoder, decode


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1024}, logging={"access": {"enabled": False}})
class Embeddings:
    def __init__(self):
        self.encoder = Encoder()

    @bentoml.api(batchable=True, max_batch_size=32, route="/v1/embeddings")
    def embed(self, input: list[str]) -> np.ndarray:  # noqa: A002 - the name of its field
        return self.encoder(np.stack([decode(text) for text in input]))


if __name__ == "__main__":
    here = Path(__file__)
    os.chdir(here.parent)
    options = ["serve", f"{here.stem}:Embeddings", "--host", "127.0.0.1", "--port", sys.argv[1]]
    os.execv(program := str(Path(sys.executable).with_name("bentoml")), [program, *options])

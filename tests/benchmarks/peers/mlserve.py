"""MLServer with its adaptive batching and its one inference worker: ``mlserve.py PORT``.

Its batching belongs to the Open Inference Protocol, so that is the route: ``/v2/models/align-uniform/infer``.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from embedding import MODEL, Encoder, decode
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse


class Embeddings(MLModel):
    async def load(self):
        self.encoder = Encoder()
        return True

    async def predict(self, payload):
        texts = StringCodec.decode_input(payload.inputs[0])
        rows = self.encoder(np.stack([decode(text) for text in texts]))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("embedding", rows)])


def configure(folder, port):
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "debug": False}
    model = {"name": MODEL, "implementation": f"{Path(__file__).stem}.Embeddings", "max_batch_size": 32}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps({**model, "max_batch_time": 0.002}))


if __name__ == "__main__":
    home = Path(tempfile.mkdtemp())
    configure(home, int(sys.argv[1]))
    os.environ["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    os.chdir(home)  # it leaves files of its metrics where it is started
    os.execv(program := str(Path(sys.executable).with_name("mlserver")), [program, "start", str(home)])

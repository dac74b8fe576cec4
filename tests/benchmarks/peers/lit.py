"""LitServe with its batching: ``lit.py PORT``."""

import sys

import litserve
import numpy as np
import orjson
from embedding import Encoder, answer, decode
from fastapi import Response


class Embeddings(litserve.LitAPI):
    def setup(self, device):
        self.encoder = Encoder()

    def decode_request(self, request):
        return decode(request["input"])

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, images):
        return self.encoder(images)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, row):
        raw = orjson.dumps(answer([row]), option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(raw, media_type="application/json")


if __name__ == "__main__":
    api = Embeddings(max_batch_size=32, batch_timeout=0.002, api_path="/v1/embeddings")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False, log_level="warning")

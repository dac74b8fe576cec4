"""Plain FastAPI with the encoder in its process: ``plain.py PORT [batched]``."""

import asyncio
import sys

import numpy as np
import orjson
import uvicorn
from embedding import Encoder, answer, decode
from fastapi import FastAPI, Response
from pydantic import BaseModel


class Body(BaseModel):
    model: str
    input: str


app = FastAPI()
encoder = Encoder()
waiting = []


def respond(row):
    return Response(orjson.dumps(answer([row]), option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


async def one_by_one(body: Body):
    return respond(encoder(decode(body.input)[None])[0])


async def drain():
    """Encode everything that waits, up to 32 at a time, until nothing waits."""
    while waiting:
        batch, waiting[:] = waiting[:32], waiting[32:]
        rows = await asyncio.to_thread(encoder, np.stack([image for image, _ in batch]))
        for (_, future), row in zip(batch, rows, strict=True):
            future.set_result(row)
        await asyncio.sleep(0)


async def batched(body: Body):
    future = asyncio.get_running_loop().create_future()
    waiting.append((decode(body.input), future))
    draining = getattr(app.state, "draining", None)
    if draining is None or draining.done():
        app.state.draining = asyncio.ensure_future(drain())
    return respond(await future)


if __name__ == "__main__":
    app.post("/v1/embeddings")(batched if "batched" in sys.argv else one_by_one)
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning", access_log=False)

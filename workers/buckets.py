"""Token buckets in Redis, which all gateways share."""

from __future__ import annotations

from typing import Any, cast

import redis.asyncio

# Neither the append-only file nor a replica learns of a bucket: a write to disk for each request would cost more than
# the request, and a bucket that is lost is a full one. Times are Redis' own: hosts' differ.
TAKE = """
-- key, tokens that it holds at most and gains in a minute. Whether there was one, and how many are left
redis.set_repl(redis.REPL_NONE)
local bucket, size = 'dn:bucket:' .. ARGV[1], tonumber(ARGV[2])
local seconds, micros = unpack(redis.call('TIME'))
local now = tonumber(seconds) + tonumber(micros) / 1e6
local kept = redis.call('HMGET', bucket, 'tokens', 'at')
local tokens = math.min(size, tonumber(kept[1] or size) + math.max(0, now - tonumber(kept[2] or now)) * size / 60)
local taken = tokens >= 1 and 1 or 0
tokens = tokens - taken
redis.call('HSET', bucket, 'tokens', string.format('%.9f', tokens), 'at', string.format('%.6f', now))
redis.call('EXPIRE', bucket, 120)
return {taken, string.format('%.9f', tokens)}
"""


async def take(client: redis.asyncio.Redis, key: str, per_minute: int) -> tuple[bool, float]:
    """Take a token of ``key``: whether there was one, and how many are left."""
    taken, left = await cast(Any, client).eval(TAKE, 0, key, per_minute)
    return bool(taken), float(left)

"""The Lua scripts that change a job's record: each is one atomic step, and the only way to change a status.

They name their keys themselves, so the queue needs one Redis (or Valkey) with its replicas, not the sharded cluster
mode. Keys: ``dn:job:ID`` the record, ``dn:events:ID`` its event stream, ``dn:log:ID`` the log's tail, and sorted sets
of ids by time: ``dn:jobs`` and ``dn:jobs:OWNER`` all, ``dn:open`` and ``dn:open:OWNER`` not final, ``dn:queued``
waiting, ``dn:closed`` final. ``dn:counts``, ``dn:histograms`` and ``dn:lost`` hold the metrics.
"""

from __future__ import annotations

from workers.stats import DURATION_BOUNDS, QUEUE, WAIT_BOUNDS

EVENTS_KEPT = 1000
LOG_LINES_KEPT = 100
MAX_ATTEMPTS = 3

_PRELUDE = f"""
local id = ARGV[1]
local key = 'dn:job:' .. id
local terminal = {{succeeded=true, failed=true, cancelled=true}}
local bounds = {{wait={{{",".join(WAIT_BOUNDS)}}}, duration={{{",".join(DURATION_BOUNDS)}}}}}
local labels = {{wait={{'{"','".join(WAIT_BOUNDS)}'}}, duration={{'{"','".join(DURATION_BOUNDS)}'}}}}
local function observe(which, name, value)
  local label = '+Inf'
  for i, bound in ipairs(bounds[which]) do
    if value <= bound then label = labels[which][i] break end
  end
  redis.call('HINCRBY', 'dn:histograms', which .. '|' .. name .. '|' .. label, 1)
  redis.call('HINCRBYFLOAT', 'dn:histograms', which .. '|' .. name .. '|sum', value)
end
local function count(kind, status, change)
  if redis.call('HINCRBY', 'dn:counts', kind .. '|' .. status, change) <= 0 then
    redis.call('HDEL', 'dn:counts', kind .. '|' .. status)
  end
end
local function emit(event, data)
  redis.call('XADD', 'dn:events:' .. id, 'MAXLEN', '~', {EVENTS_KEPT}, '*', 'event', event, 'data', data)
end
local function set_status(status)
  local old = redis.call('HMGET', key, 'kind', 'status')
  count(old[1], old[2], -1)
  count(old[1], status, 1)
  redis.call('HSET', key, 'status', status)
end
local function finish(status, now)
  local facts = redis.call('HMGET', key, 'owner', 'kind', 'started_at', 'error')
  set_status(status)
  redis.call('HSET', key, 'finished_at', now)
  redis.call('ZREM', 'dn:open', id)
  redis.call('ZREM', 'dn:queued', id)
  redis.call('ZREM', 'dn:open:' .. facts[1], id)
  redis.call('ZADD', 'dn:closed', now, id)
  if facts[3] then observe('duration', facts[2] .. '|' .. status, tonumber(now) - tonumber(facts[3])) end
  local data = {{status=status}}
  if facts[4] then data.error = cjson.decode(facts[4]) end
  emit('status', cjson.encode(data))
end
"""

CREATE = (
    _PRELUDE
    + """
-- id, owner, kind, created, limit, body hash, then fields. 1 made, 0 there already, -1 another body, -2 limit
local owner, kind, created = ARGV[2], ARGV[3], ARGV[4]
local known = redis.call('HGET', key, 'body_hash')
if known then return known == ARGV[6] and 0 or -1 end
if redis.call('ZCARD', 'dn:open:' .. owner) >= tonumber(ARGV[5]) then return -2 end
redis.call('HSET', key, 'id', id, 'owner', owner, 'kind', kind, 'created_at', created, 'body_hash', ARGV[6],
           'status', 'queued', 'attempts', 0, unpack(ARGV, 7))
for _, set in ipairs({'dn:jobs', 'dn:jobs:' .. owner, 'dn:open', 'dn:open:' .. owner, 'dn:queued'}) do
  redis.call('ZADD', set, created, id)
end
count(kind, 'queued', 1)
emit('status', cjson.encode({status='queued'}))
return 1
"""
)

BEGIN = (
    _PRELUDE
    + f"""
-- id, attempt, now, worker. 1 begun, 0 final already, 2 cancelled, 3 attempts used up, -1 the lease is lost
local status = redis.call('HGET', key, 'status')
if not status or terminal[status] then return 0 end
if redis.call('HGET', key, 'cancel') then return 2 end
if not redis.call('ZSCORE', 'rq:wip:{QUEUE}', id .. ':' .. ARGV[2]) then return -1 end
if tonumber(redis.call('HGET', key, 'attempts')) >= {MAX_ATTEMPTS} then return 3 end
local attempts = redis.call('HINCRBY', key, 'attempts', 1)
if redis.call('HSETNX', key, 'started_at', ARGV[3]) == 1 then
  local facts = redis.call('HMGET', key, 'kind', 'created_at')
  observe('wait', facts[1], tonumber(ARGV[3]) - tonumber(facts[2]))
end
redis.call('HSET', key, 'attempt', ARGV[2], 'worker', ARGV[4])
redis.call('ZREM', 'dn:queued', id)
set_status('running')
emit('status', cjson.encode({{status='running', attempts=attempts}}))
return 1
"""
)

WRITE = (
    _PRELUDE
    + f"""
-- id, attempt, number of field arguments, fields and values, then events and their data.
-- 1 written, 2 written and the user asked for a stop, 0 another attempt owns the job: nothing written
local facts = redis.call('HMGET', key, 'attempt', 'status', 'cancel')
if facts[1] ~= ARGV[2] or facts[2] ~= 'running' then return 0 end
local fields = tonumber(ARGV[3])
if fields > 0 then redis.call('HSET', key, unpack(ARGV, 4, 3 + fields)) end
for i = 4 + fields, #ARGV, 2 do
  emit(ARGV[i], ARGV[i + 1])
  if ARGV[i] == 'log' then
    redis.call('RPUSH', 'dn:log:' .. id, cjson.decode(ARGV[i + 1]).message)
    redis.call('LTRIM', 'dn:log:' .. id, -{LOG_LINES_KEPT}, -1)
  end
end
return facts[3] and 2 or 1
"""
)

CLOSE = (
    _PRELUDE
    + """
-- id, attempt last seen ('' before the first), status, now, then fields. 1 closed, 0 another attempt or final already
local facts = redis.call('HMGET', key, 'attempt', 'status')
if not facts[2] or terminal[facts[2]] or (facts[1] or '') ~= ARGV[2] then return 0 end
if #ARGV > 4 then redis.call('HSET', key, unpack(ARGV, 5)) end
finish(ARGV[3], ARGV[4])
return 1
"""
)

REQUEUE = (
    _PRELUDE
    + """
-- id, attempt last seen: a run that died waits for the next worker. 1 done, 0 it moved on meanwhile
local facts = redis.call('HMGET', key, 'attempt', 'status', 'created_at', 'kind')
if facts[1] ~= ARGV[2] or facts[2] ~= 'running' then return 0 end
set_status('queued')
redis.call('HINCRBY', 'dn:lost', facts[4], 1)
redis.call('ZADD', 'dn:queued', facts[3], id)
emit('status', cjson.encode({status='queued'}))
return 1
"""
)

CANCEL = (
    _PRELUDE
    + """
-- id, now. -1 unknown, 0 final already, 1 it was waiting and is cancelled, 2 it runs and is flagged
local status = redis.call('HGET', key, 'status')
if not status then return -1 end
if terminal[status] then return 0 end
redis.call('HSETNX', key, 'cancel', ARGV[2])
if status == 'queued' then finish('cancelled', ARGV[2]) return 1 end
return 2
"""
)

FORGET = (
    _PRELUDE
    + """
-- id of a final job whose retention is over
local facts = redis.call('HMGET', key, 'owner', 'kind', 'status')
redis.call('ZREM', 'dn:closed', id)
if not facts[1] then return 0 end
redis.call('ZREM', 'dn:jobs', id)
redis.call('ZREM', 'dn:jobs:' .. facts[1], id)
count(facts[2], facts[3], -1)
redis.call('DEL', key, 'dn:events:' .. id, 'dn:log:' .. id)
return 1
"""
)

_IN_ORDER = f"""
local function push(id)
  local waiting, ranks = 'rq:queue:{QUEUE}', {{high=0, normal=1, low=2}}
  local function rank(other) -- by priority, and in it a job that lost its run before those that have not begun
    local facts = redis.call('HMGET', 'dn:job:' .. other, 'priority', 'attempts')
    return 2 * (ranks[facts[1] or 'normal'] or 1) + (tonumber(facts[2] or 0) > 0 and 0 or 1)
  end
  local own, low, high = rank(id), 0, redis.call('LLEN', waiting)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if rank(redis.call('LINDEX', waiting, middle)) <= own then low = middle + 1 else high = middle end
  end
  local behind = redis.call('LINDEX', waiting, low)
  if behind then redis.call('LINSERT', waiting, 'BEFORE', behind, id) else redis.call('RPUSH', waiting, id) end
end
"""

PLACE = (
    _IN_ORDER
    + f"""
-- id of a job at the end of the queue: move it before those of lower priority; nothing where a worker took it meanwhile
if redis.call('LREM', 'rq:queue:{QUEUE}', -1, ARGV[1]) == 1 then push(ARGV[1]) end
"""
)

PUSH_MISSING = (
    _IN_ORDER
    + f"""
-- id, now as the queue library writes it: push a job that its queue lost. 1 pushed, 0 it is waiting, taken or running
local id = ARGV[1]
for _, list in ipairs({{'rq:queue:{QUEUE}', 'rq:queue:{QUEUE}:intermediate'}}) do
  if redis.call('LPOS', list, id) then return 0 end
end
for _, entry in ipairs(redis.call('ZRANGE', 'rq:wip:{QUEUE}', 0, -1)) do
  if string.sub(entry, 1, #id + 1) == id .. ':' then return 0 end
end
redis.call('HSET', 'rq:job:' .. id, 'status', 'queued', 'enqueued_at', ARGV[2])
push(id)
return 1
"""
)

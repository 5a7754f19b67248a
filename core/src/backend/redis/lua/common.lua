-- What the scripts below share. ARGV[1] is the prefix.
local call = redis.call
local P = ARGV[1]
local NONE = '\0\0\0\0\0\0\0\0'
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function num(v) return tonumber(v or 0) end
local function place(e, n) return e .. struct.pack('>I6', n) end
local function offset(r, at) return (struct.unpack('>I6', r, at)) end
-- The keys of a session share a hash tag, so that a cluster keeps them in one slot.
local function tag(id)
  return (string.gsub(id, '[%%{}]', function(c) return string.format('%%%02X', string.byte(c)) end))
end
local function keys_of(id)
  local t = '{' .. tag(id) .. '}'
  return P .. 'session:' .. t, P .. 'log:' .. t, P .. 'keys:' .. t, P .. 'uris:' .. t
end
local function docs_of(id)
  return P .. 'client_info:' .. id, P .. 'client_capabilities:' .. id, P .. 'log_level:' .. id,
    P .. 'protocol_version:' .. id, P .. 'initialize_params:' .. id
end
local function alive(node) return call('EXISTS', P .. 'node:' .. node) == 1 end
-- A session: e epoch, n head, o owner epoch, h holder and its lease's ttl, r where a stream without
-- a cursor starts, m remembered until, i info lives until. Of its log: t bytes ever, k at least so
-- many of them before what is kept, x when its expiry was put off. An event is two entries of the
-- list: when, bytes before it (a session's: also the broadcast before it), and the payload.
local function load(meta)
  local v = call('HMGET', meta, 'e', 'n', 'o', 'h', 'r', 'm', 'i')
  local s = { e = v[1], n = num(v[2]), o = v[3] or '0', r = v[5], m = num(v[6]), i = num(v[7]) }
  if v[4] then s.h, s.ttl = string.sub(v[4], 1, 32), num(string.sub(v[4], 33)) end
  s.known = s.e and (s.h or s.m > now or s.i > now) and true or false
  return s
end
local function topic(name, epoch)
  local v = call('HMGET', P .. 'topic:{' .. name .. '}', 'e', 'n')
  if v[1] or not epoch then return v[1] or NONE, num(v[2]) end
  call('DEL', P .. 'topiclog:{' .. name .. '}', P .. 'topickeys:{' .. name .. '}')
  call('HSET', P .. 'topic:{' .. name .. '}', 'e', epoch, 'n', 0)
  call('PEXPIRE', P .. 'topic:{' .. name .. '}', 3600000)
  return epoch, 0
end
-- Starts a session over.
local function create(id, epoch, s)
  local meta, log, keys = keys_of(id)
  local be, bn = topic('b')
  call('DEL', meta, log, keys)
  s = s or { m = 0, i = 0 }
  s.e, s.n, s.o, s.r = epoch, 0, '0', place(epoch, 0) .. place(be, bn)
  call('HSET', meta, 'e', s.e, 'n', 0, 'o', '0', 'r', s.r)
  return s
end
local function expire(meta, s)
  if not s.h then call('PEXPIREAT', meta, math.max(s.m, s.i)) end
end
-- Where the entries accepted at or after a moment begin.
local function since(log, n, at)
  local later = 0
  while true do
    local entry = call('LINDEX', log, -2 * later - 2)
    if not entry or struct.unpack('>I6', entry) < at then return n - later end
    later = later + 1
  end
end
-- Where a stream starts that brings no position of its own.
local function fresh(s, log)
  if not s.h then return s.r end
  local be, bn = topic('b')
  if alive(s.h) then return place(s.e, s.n) .. place(be, bn) end
  -- What its node was sent after it last renewed may never have reached its reader.
  local renewed = num(call('ZSCORE', P .. 'nodes', s.h)) - s.ttl
  local own = math.max(since(log, s.n, renewed), offset(s.r, 9))
  local shared = since(P .. 'topiclog:{b}', bn, renewed)
  if string.sub(s.r, 15, 22) == be then shared = math.max(shared, offset(s.r, 23)) end
  return place(s.e, own) .. place(be, shared)
end
-- What a log holds after a position: start, gap, entries.
local function after(log, e, n, age, from, at)
  local len = call('LLEN', log) / 2
  while len > 0 do
    if struct.unpack('>I6', call('LINDEX', log, 0)) + age > now then break end
    call('LTRIM', log, 2, -1)
    len = len - 1
  end
  local first = n + 1 - len
  local wanted = offset(from, at + 8)
  local exact = string.sub(from, at, at + 7) == e and wanted <= n and wanted + 1 >= first
  local start = exact and wanted + 1 or first
  local entries = start <= n and call('LRANGE', log, 2 * (start - first), -1) or {}
  return start - 1, not exact, entries
end
-- What both logs hold after positions: start, gap, own, broadcasts.
local function tail(s, log, from, age, bage, be, bn)
  local own, own_gap, own_entries = after(log, s.e, s.n, age, from, 1)
  local shared, shared_gap, shared_entries = after(P .. 'topiclog:{b}', be, bn, bage, from, 15)
  return place(s.e, own) .. place(be, shared), (own_gap or shared_gap) and 1 or 0, own_entries, shared_entries
end
local function tell_end(id, s, reason)
  call('PUBLISH', P .. 'to:' .. s.h,
    'X' .. struct.pack('>I2', #id) .. id .. struct.pack('>I8', tonumber(s.o)) .. reason)
end
-- Takes the holder away; the session is remembered from now on.
local function unhold(id, s, meta, resume, age)
  call('SREM', P .. 'held:' .. s.h, id)
  call('HDEL', meta, 'h')
  s.h, s.r, s.m = nil, resume, now + age
  call('HSET', meta, 'r', s.r, 'm', s.m)
  expire(meta, s)
end
-- Ends the stream of a live holder; true when there was one.
local function end_holder(id, s, meta, log, reason, age)
  if not s.h then return false end
  local live = alive(s.h)
  if live then tell_end(id, s, reason) end
  unhold(id, s, meta, fresh(s, log), age)
  return live
end
-- Removes a session's resource subscriptions.
local function unsubscribe_all(id, uris)
  for _, uri in ipairs(call('SMEMBERS', uris)) do call('SREM', P .. 'subscriptions:' .. uri, id) end
  call('DEL', uris)
  call('ZREM', P .. 'due', id)
end
-- How long beyond its info a session's subscriptions stay for a node that sweeps them.
local GRACE = 3600000
-- Lets a session's info live for another ttl, once a quarter of it has passed.
local function touch(id, s, meta, uris, ttl)
  if s.i - now >= ttl * 0.75 then return end
  if s.i <= now then unsubscribe_all(id, uris) end
  s.i = now + ttl
  call('HSET', meta, 'i', s.i)
  expire(meta, s)
  for _, doc in ipairs({ docs_of(id) }) do call('PEXPIREAT', doc, s.i) end
  local subscribed = call('SMEMBERS', uris)
  if #subscribed == 0 then return end
  call('PEXPIREAT', uris, s.i + GRACE)
  call('ZADD', P .. 'due', s.i, id)
  call('PEXPIRE', P .. 'due', ttl + 2 * GRACE)
  for _, uri in ipairs(subscribed) do call('PEXPIRE', P .. 'subscriptions:' .. uri, ttl + 2 * GRACE) end
end

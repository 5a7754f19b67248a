-- What changes a session, wherever the other keys are.
local meta, log, keys, uris = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
-- Starts a session over.
local function create(epoch)
  local be, bn = topic('b')
  local g = call('HGET', KEYS[1], 'g')
  for k = 1, 3 do call('DEL', KEYS[k]) end
  local s = { e = epoch, n = 0, o = '0', m = 0, i = 0, g = num(g), r = place(epoch, 0) .. place(be, bn) }
  call('HSET', KEYS[1], 'e', s.e, 'n', 0, 'o', '0', 'r', s.r, 'w', RUN)
  if g then call('HSET', KEYS[1], 'g', g) end
  return s
end
-- Where a stream starts that brings no position of its own.
local function fresh(s, log)
  if not s.h then return s.r end
  local be, bn = topic('b')
  if alive(s.h) then return place(s.e, s.n) .. place(be, bn) end
  -- What its node was sent after it last renewed may never have reached its reader.
  local at, shared = renewed(s)
  local own = math.max(since(log, s.n, at), offset(s.r, 9))
  if is_shared(string.sub(s.r, 15, 22), offset(s.r, 23)) then shared = math.max(shared, offset(s.r, 23)) end
  return place(s.e, own) .. place(be, shared)
end
-- What both logs hold after positions: start, gap, own, broadcasts, and the epochs those had before.
local function tail(s, log, from, age, shared_age)
  local own, own_gap, own_entries = after(meta, log, s.e, s.n, age, from, 1)
  local shared, shared_gap, shared_entries, shared_before = broadcasts(from, shared_age)
  return place(s.e, own) .. shared, (own_gap or shared_gap) and 1 or 0, own_entries, shared_entries, shared_before
end
local function end_message(id, o, reason)
  return 'X' .. struct.pack('>I2', #id) .. id .. struct.pack('>I8', tonumber(o)) .. reason
end
local function tell_end(id, s, reason)
  if s.h and alive(s.h) then tell(s.h, end_message(id, s.o, reason)) end
  if s.p then tell(s.p, end_message(id, s.po, 'r')) end
end
-- Takes the holder away; the session is remembered from now on.
local function unhold(id, s, meta, resume, age)
  drop(s.h, id, s)
  call('HDEL', meta, 'h')
  s.h, s.r, s.m = nil, resume, now + age
  call('HSET', meta, 'r', s.r, 'm', s.m)
  expire(meta, s)
end
-- Lets a session's info live for another ttl, once a quarter of it has passed.
local function touch(id, s, meta, uris, ttl)
  if s.i - now >= ttl * 0.75 then return end
  if s.i <= now then unsubscribe_all(id, uris) end
  s.i = now + ttl
  call('HSET', meta, 'i', s.i)
  expire(meta, s)
  local subscribed = call('SMEMBERS', uris)
  if #subscribed > 0 then call('PEXPIREAT', uris, s.i + GRACE) end
  prolong(id, s, ttl, subscribed)
end
local s = uris and load(meta)
local id = ARGV[2]

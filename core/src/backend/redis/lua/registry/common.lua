-- What the registry's scripts share. KEYS: session, registry.
-- A record: s state (o open, c closing, d closed), o owner, w node, c created, a last access, y why it
-- closes, x since when, j metadata; q: and a node: how many requests that node serves. Until when the
-- session is known for its sake is noted as g with the session; below 0, until when it is gone.
-- The last argument, the run of the server, is for other scripts.
table.remove(ARGV)
local call = redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local meta, reg = KEYS[1], KEYS[2]
local function text(ms) return string.format('%d', ms) end
-- Lets the record live on, and the session be known with it.
local function keep(ttl)
  call('PEXPIRE', reg, ttl)
  if call('EXISTS', meta) == 0 then return end
  call('HSET', meta, 'g', text(now + ttl))
  if call('PTTL', meta) < tonumber(ttl) then call('PEXPIRE', meta, ttl) end
end
-- From here on the session is gone for everybody.
local function close(reason, ttl)
  call('HSET', reg, 's', 'c', 'y', reason, 'x', text(now))
  call('PEXPIRE', reg, ttl)
  call('HSET', meta, 'g', text(-now - ttl))
  if call('PTTL', meta) < tonumber(ttl) then call('PEXPIRE', meta, ttl) end
end

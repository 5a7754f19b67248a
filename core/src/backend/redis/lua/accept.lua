-- Accepts events for one session. KEYS: session, log, keys.
-- ARGV: prefix, id, age, events, bytes; then payload and idempotency key of each event.
-- Returns one letter an event: a accepted, d duplicate, x dropped.
local call = redis.call
local m = call('HMGET', KEYS[1], 'e', 'n', 'h', 'm', 'i', 'k', 'x')
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if not m[1] or not (m[3] or tonumber(m[4] or 0) > now or tonumber(m[5] or 0) > now) then
  return string.rep('x', (#ARGV - 5) / 2)
end
local P, id, age, events, limit = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local live = m[3] and string.sub(m[3], 1, 32)
if live and events == 0 and call('EXISTS', P .. 'node:' .. live) == 0 then live = nil end
local b = call('HMGET', P .. 'topic:{b}', 'e', 'n')
local head = struct.pack('>I6I6', now, tonumber(b[2] or 0)) .. (b[1] or '\0\0\0\0\0\0\0\0')
local n = tonumber(m[2])
local first, size, out, log, msg, noted = n + 1, 0, {}, {}, {}, nil
for a = 6, #ARGV, 2 do
  local payload, key, state = ARGV[a], ARGV[a + 1], 'a'
  if key ~= '' then
    local at = noted and noted[key] or call('ZSCORE', KEYS[3], key)
    if at and tonumber(at) + age > now then state = 'd' end
  end
  if state == 'a' then
    n = n + 1
    if events == 0 and not live then
      state = 'x'
    else
      if key ~= '' then
        noted = noted or {}
        noted[key] = now
      end
      size = size + #payload
      log[#log + 1] = head .. payload
      msg[#msg + 1] = struct.pack('>I4', #payload)
      msg[#msg + 1] = payload
    end
  end
  out[#out + 1] = state
end
if n < first then return table.concat(out) end
if events == 0 then
  call('HSET', KEYS[1], 'n', n)
else
  local len = call('RPUSH', KEYS[2], unpack(log))
  local new = len == #log
  local kept = (new and 0 or tonumber(m[6] or 0)) + size
  if len > events then
    for _, old in ipairs(call('LPOP', KEYS[2], len - events)) do kept = kept - #old + 20 end
    len = events
  end
  -- The newest stays however large it is.
  while kept > limit and len > 1 do
    kept = kept - #call('LPOP', KEYS[2]) + 20
    len = len - 1
  end
  if new or now - tonumber(m[7] or 0) > age / 4 then
    call('PEXPIRE', KEYS[2], math.floor(age * 1.25) + 1)
    while len > 1 do
      local old = call('LINDEX', KEYS[2], 0)
      if struct.unpack('>I6', old) + age > now then break end
      call('LPOP', KEYS[2])
      kept = kept - #old + 20
      len = len - 1
    end
    call('HSET', KEYS[1], 'n', n, 'k', kept, 'x', now)
  else
    call('HSET', KEYS[1], 'n', n, 'k', kept)
  end
end
if noted then
  call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - age)
  for key in pairs(noted) do call('ZADD', KEYS[3], now, key) end
  call('ZREMRANGEBYRANK', KEYS[3], 0, -1025)
  call('PEXPIRE', KEYS[3], age)
end
if live then
  call('PUBLISH', P .. 'to:' .. live,
    'E' .. struct.pack('>I2', #id) .. id .. m[1] .. struct.pack('>I6', first) .. table.concat(msg))
end
return table.concat(out)

-- Accepts events for every node. KEYS: topic, log, keys.
-- ARGV: channel, name, age, events, bytes, ttl, a new epoch; then payload and idempotency key of each.
-- Returns one letter an event: a accepted, d duplicate.
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local m = call('HMGET', KEYS[1], 'e', 'n', 'k', 'x')
local age, events, limit = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if not m[1] then
  call('DEL', KEYS[2], KEYS[3])
  m = { ARGV[7], 0, 0, 0 }
end
local n = tonumber(m[2])
local first, size, out, log, msg, noted = n + 1, 0, {}, {}, {}, nil
local head = struct.pack('>I6', now)
for a = 8, #ARGV, 2 do
  local payload, key, state = ARGV[a], ARGV[a + 1], 'a'
  if key ~= '' then
    local at = noted and noted[key] or call('ZSCORE', KEYS[3], key)
    if at and tonumber(at) + age > now then
      state = 'd'
    else
      noted = noted or {}
      noted[key] = now
    end
  end
  if state == 'a' then
    n = n + 1
    size = size + #payload
    log[#log + 1] = head .. payload
    msg[#msg + 1] = struct.pack('>I4', #payload)
    msg[#msg + 1] = payload
  end
  out[#out + 1] = state
end
if n < first then return table.concat(out) end
local kept, x = 0, tonumber(m[4] or 0)
if events > 0 then
  local len = call('RPUSH', KEYS[2], unpack(log))
  local new = len == #log
  kept = (new and 0 or tonumber(m[3] or 0)) + size
  if len > events then
    for _, old in ipairs(call('LPOP', KEYS[2], len - events)) do kept = kept - #old + 6 end
    len = events
  end
  while kept > limit and len > 1 do
    kept = kept - #call('LPOP', KEYS[2]) + 6
    len = len - 1
  end
  if new or now - x > age / 4 then
    x = now
    call('PEXPIRE', KEYS[2], math.floor(age * 1.25) + 1)
    while len > 1 do
      local old = call('LINDEX', KEYS[2], 0)
      if struct.unpack('>I6', old) + age > now then break end
      call('LPOP', KEYS[2])
      kept = kept - #old + 6
      len = len - 1
    end
  end
end
call('HSET', KEYS[1], 'e', m[1], 'n', n, 'k', kept, 'x', x)
if x == now or events == 0 then call('PEXPIRE', KEYS[1], ARGV[6]) end
if noted then
  call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - age)
  for key in pairs(noted) do call('ZADD', KEYS[3], now, key) end
  call('ZREMRANGEBYRANK', KEYS[3], 0, -1025)
  call('PEXPIRE', KEYS[3], age)
end
call('PUBLISH', ARGV[1], 'T' .. ARGV[2] .. m[1] .. struct.pack('>I6', first) .. table.concat(msg))
return table.concat(out)

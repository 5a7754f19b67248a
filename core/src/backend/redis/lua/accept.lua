-- Accepts events for one session. KEYS: session, log, keys.
-- ARGV: prefix, the head of a message for the session, age, events, bytes; then payload and
-- idempotency key of each event.
-- Returns one letter an event: a accepted, d duplicate, x dropped.
-- Large strings are costly here, so a payload is never joined with anything but its message.
local call, pack, format = redis.call, struct.pack, string.format
local m = call('HMGET', KEYS[1], 'e', 'n', 'h', 't', 'k', 'x', 'm', 'i')
local events, now = tonumber(ARGV[4]), nil
if events > 0 or not m[3] or ARGV[7] ~= '' or #ARGV > 7 then
  local t = call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
if not m[1] or not (m[3] or tonumber(m[7] or 0) > now or tonumber(m[8] or 0) > now) then
  return string.rep('x', (#ARGV - 5) / 2)
end
local live = m[3] and string.sub(m[3], 1, 32)
if live and events == 0 and call('EXISTS', ARGV[1] .. 'node:' .. live) == 0 then live = nil end
local n, bytes = tonumber(m[2]), tonumber(m[4] or 0)
local first, after, age = n + 1, nil, tonumber(ARGV[3])
if events > 0 then
  local b = call('HMGET', ARGV[1] .. 'topic:{b}', 'e', 'n')
  after = pack('>I6', tonumber(b[2] or 0)) .. (b[1] or '\0\0\0\0\0\0\0\0')
end
local out, log, msg, noted = {}, {}, {}, nil
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
      if after then
        log[#log + 1] = pack('>I6I6', now, bytes) .. after
        log[#log + 1] = payload
      end
      bytes = bytes + #payload
      msg[#msg + 1] = pack('>I4', #payload)
      msg[#msg + 1] = payload
    end
  end
  out[#out + 1] = state
end
if n < first then return table.concat(out) end
if events == 0 then
  call('HSET', KEYS[1], 'n', format('%d', n))
else
  local limit, was = tonumber(ARGV[5]), tonumber(m[4] or 0)
  local len = call('RPUSH', KEYS[2], unpack(log)) / 2
  local new = len == #log / 2
  -- How many bytes came before the first event that is kept: at least as many as this.
  local base = new and was or tonumber(m[5] or 0)
  local due = new or now - tonumber(m[6] or 0) > age / 4
  if len > events then
    call('LTRIM', KEYS[2], -2 * events, -1)
    len = events
  end
  if due or bytes - base > limit then
    while true do
      local oldest, before = struct.unpack('>I6I6', call('LINDEX', KEYS[2], 0))
      base = before
      -- The newest stays however large it is.
      if len == 1 or (oldest + age > now and bytes - base <= limit) then break end
      call('LTRIM', KEYS[2], 2, -1)
      len = len - 1
    end
    if due then call('PEXPIRE', KEYS[2], format('%d', age * 1.25 + 1)) end
    call('HSET', KEYS[1], 'n', format('%d', n), 't', format('%d', bytes), 'k', format('%d', base), 'x',
      due and format('%d', now) or m[6])
  else
    call('HSET', KEYS[1], 'n', format('%d', n), 't', format('%d', bytes))
  end
end
if noted then
  call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - age)
  for key in pairs(noted) do call('ZADD', KEYS[3], now, key) end
  call('ZREMRANGEBYRANK', KEYS[3], 0, -1025)
  call('PEXPIRE', KEYS[3], ARGV[3])
end
if live then
  local message
  if #msg == 2 then
    message = ARGV[2] .. m[1] .. pack('>I6', first) .. msg[1] .. msg[2]
  else
    message = ARGV[2] .. m[1] .. pack('>I6', first)
    table.insert(msg, 1, message)
    message = table.concat(msg)
  end
  call('PUBLISH', ARGV[1] .. 'to:' .. live, message)
end
return table.concat(out)

-- Accepts events for one session. KEYS: session, log, keys.
-- ARGV: prefix, the head of a message for the session, age, events, bytes; then payload and
-- idempotency key of each event.
-- Returns one letter an event: a accepted, d duplicate, x dropped. In a cluster (MANY), where the
-- prefix gives way to the head of the broadcasts as the sender knows it, nothing is published: also
-- returns the holder, and where the accepted events begin or, without any, the head.
-- Large strings are costly here, so a payload is never joined with anything but its message.
local call, pack, format, run = redis.call, struct.pack, string.format, table.remove(ARGV)
local m = call('HMGET', KEYS[1], 'e', 'n', 'h', 't', 'k', 'x', 'm', 'i', 'g', 'w')
local events, now = tonumber(ARGV[4]), nil
if events > 0 or not m[3] or ARGV[7] ~= '' or #ARGV > 7 then
  local t = call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
local g = tonumber(m[9] or 0)
if not m[1] or (now and -g > now)
  or not (m[3] or tonumber(m[7] or 0) > now or tonumber(m[8] or 0) > now or g > now) then
  local none = string.rep('x', (#ARGV - 5) / 2)
  return MANY and { none, '', '' } or none
end
if m[10] ~= run then m[1] = go_on(KEYS[1], m[1], m[2], m[10], run) end
local live = m[3] and string.sub(m[3], 1, 32)
if live and events == 0 and not MANY then
  local t = call('TIME')
  local lease = call('ZSCORE', ARGV[1] .. 'nodes:{all}', live)
  if tonumber(lease or 0) <= t[1] * 1000 + math.floor(t[2] / 1000) then live = nil end
end
local n, bytes = tonumber(m[2]), tonumber(m[4] or 0)
local first, after, age = n + 1, nil, tonumber(ARGV[3])
if events > 0 and MANY then
  after = ARGV[1]
elseif events > 0 then
  local b = call('HMGET', ARGV[1] .. 'topic:{all}b', 'e', 'n')
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
if n < first then
  out = table.concat(out)
  return MANY and { out, live or '', m[1] .. pack('>I6', n) } or out
end
if events == 0 then
  call('HSET', KEYS[1], 'n', format('%d', n))
else
  keep_events(KEYS[1], KEYS[2], m, log, n, bytes, { now = now, age = age, events = events, limit = tonumber(ARGV[5]) })
end
if noted then
  call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - age)
  for key in pairs(noted) do call('ZADD', KEYS[3], now, key) end
  call('ZREMRANGEBYRANK', KEYS[3], 0, -1025)
  call('PEXPIRE', KEYS[3], ARGV[3])
end
if MANY then return { table.concat(out), live or '', m[1] .. pack('>I6', first) } end
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

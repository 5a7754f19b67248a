-- Accepts events for every node. KEYS: topic, log, keys.
-- ARGV: channel, name, age, events, bytes, ttl, a new epoch; then payload and idempotency key of each.
-- Returns one letter an event: a accepted, d duplicate. In a cluster (MANY), where the channel gives
-- way to the key of the nodes, nothing is published: also returns where the accepted events begin or,
-- without any, the head; then the nodes.
local call, pack, format, run = redis.call, struct.pack, string.format, table.remove(ARGV)
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local m = call('HMGET', KEYS[1], 'e', 'n', 't', 'k', 'x', 'w')
local age, events, limit = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if not m[1] then
  call('DEL', KEYS[2], KEYS[3])
  call('HSET', KEYS[1], 'w', run)
  m = { ARGV[7], 0, 0, 0, 0 }
elseif m[6] ~= run then
  m[1] = go_on(KEYS[1], m[1], m[2], m[6], run)
end
local n, bytes = tonumber(m[2]), tonumber(m[3] or 0)
local was, first, out, log, msg, noted = bytes, n + 1, {}, {}, {}, nil
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
    log[#log + 1] = pack('>I6I6', now, bytes)
    log[#log + 1] = payload
    bytes = bytes + #payload
    msg[#msg + 1] = pack('>I4', #payload)
    msg[#msg + 1] = payload
  end
  out[#out + 1] = state
end
local function to_nodes(at) return { table.concat(out), m[1] .. pack('>I6', at), unpack(call('ZRANGE', ARGV[1], 0, -1)) } end
if n < first then return MANY and to_nodes(n) or table.concat(out) end
local base, x = tonumber(m[4] or 0), tonumber(m[5] or 0)
if events > 0 then
  local len = call('RPUSH', KEYS[2], unpack(log)) / 2
  local new = len == #log / 2
  if new then base = was end
  if len > events then
    call('LTRIM', KEYS[2], -2 * events, -1)
    len = events
  end
  local due = new or now - x > age / 4
  if due or bytes - base > limit then
    while true do
      local oldest, before = struct.unpack('>I6I6', call('LINDEX', KEYS[2], 0))
      base = before
      if len == 1 or (oldest + age > now and bytes - base <= limit) then break end
      call('LTRIM', KEYS[2], 2, -1)
      len = len - 1
    end
  end
  if due then
    x = now
    call('PEXPIRE', KEYS[2], format('%d', age * 1.25 + 1))
  end
end
call('HSET', KEYS[1], 'e', m[1], 'n', format('%d', n), 't', format('%d', bytes), 'k', format('%d', base), 'x',
  format('%d', x))
if x == now or events == 0 then call('PEXPIRE', KEYS[1], ARGV[6]) end
if noted then
  call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - age)
  for key in pairs(noted) do call('ZADD', KEYS[3], now, key) end
  call('ZREMRANGEBYRANK', KEYS[3], 0, -1025)
  call('PEXPIRE', KEYS[3], ARGV[3])
end
if MANY then return to_nodes(first) end
call('PUBLISH', ARGV[1], 'T' .. ARGV[2] .. m[1] .. pack('>I6', first) .. table.concat(msg))
return table.concat(out)

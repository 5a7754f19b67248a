-- Accepts events for many sessions, none of them with an idempotency key, and with history on. KEYS:
-- session and log of each. ARGV: prefix, age, events, bytes; then of each session the head of a message
-- for it, how many events it gets, and their payloads.
-- Returns letters a session, one an event: a accepted, x dropped. Of a session that can't be read it
-- is e when nothing was changed, c when something was.
local call, pack, run = redis.call, struct.pack, table.remove(ARGV)
local t = call('TIME')
local of = { now = t[1] * 1000 + math.floor(t[2] / 1000), age = tonumber(ARGV[2]), events = tonumber(ARGV[3]),
  limit = tonumber(ARGV[4]) }
local b = call('HMGET', ARGV[1] .. 'topic:{all}b', 'e', 'n')
local after = pack('>I6', tonumber(b[2] or 0)) .. (b[1] or '\0\0\0\0\0\0\0\0')
local told, nodes = {}, {}
local function accept(meta, log_key, at, count)
  local m = call('HMGET', meta, 'e', 'n', 'h', 't', 'k', 'x', 'm', 'i', 'g', 'w')
  local now, g = of.now, tonumber(m[9] or 0)
  if not m[1] or -g > now
    or not (m[3] or tonumber(m[7] or 0) > now or tonumber(m[8] or 0) > now or g > now) then
    return string.rep('x', count)
  end
  if m[10] ~= run then m[1] = go_on(meta, m[1], m[2], m[10], run) end
  local n, bytes, log, msg = tonumber(m[2]), tonumber(m[4] or 0), {}, {}
  for a = at + 2, at + 1 + count do
    log[#log + 1] = pack('>I6I6', now, bytes) .. after
    log[#log + 1] = ARGV[a]
    bytes = bytes + #ARGV[a]
    msg[#msg + 1] = pack('>I4', #ARGV[a])
    msg[#msg + 1] = ARGV[a]
  end
  keep_events(meta, log_key, m, log, n + count, bytes, of)
  if m[3] then
    local node = string.sub(m[3], 1, 32)
    if not told[node] then
      told[node] = { 'M' }
      nodes[#nodes + 1] = node
    end
    local all, head, size = told[node], ARGV[at] .. m[1] .. pack('>I6', n + 1), 0
    for _, part in ipairs(msg) do size = size + #part end
    all[#all + 1] = pack('>I4', #head + size) .. head
    for _, part in ipairs(msg) do all[#all + 1] = part end
  end
  return string.rep('a', count)
end
local out, at = {}, 5
for k = 1, #KEYS, 2 do
  local count = tonumber(ARGV[at + 1])
  of.changed = false
  -- One whose keys hold something else must not keep the others from their events.
  local fine, letters = pcall(accept, KEYS[k], KEYS[k + 1], at, count)
  out[#out + 1] = fine and letters or of.changed and 'c' or 'e'
  at = at + 2 + count
end
for _, node in ipairs(nodes) do call('PUBLISH', ARGV[1] .. 'to:' .. node, table.concat(told[node])) end
return out

-- What the scripts of a session share. KEYS: session, log, keys, uris, all in one slot of a cluster.
-- The last argument of every script is the run of the server.
local RUN = table.remove(ARGV)
local call = redis.call
local NONE = '\0\0\0\0\0\0\0\0'
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function num(v) return tonumber(v or 0) end
local function place(e, n) return e .. struct.pack('>I6', n) end
local function offset(r, at) return (struct.unpack('>I6', r, at)) end
-- A session: e epoch, n head, o owner epoch, h holder and its lease's ttl, l it is unheld because its
-- holder's lease ran out, r where a stream without a cursor starts, m remembered until, g registered until
-- (below 0: closed until), i info lives until. Of its log: t bytes ever, k at least so many of them before what is kept, x when its expiry
-- was put off. An event is two entries of the list: when, bytes before it (a session's: also the
-- broadcast before it), and the payload. In a cluster also p: a holder that was replaced, but may not
-- know it yet, and its owner epoch. With history off also u: its holder counts, and n is told with the
-- release. w and v: see go_on.lua.
local function load(meta)
  local v = call('HMGET', meta, 'e', 'n', 'o', 'h', 'r', 'm', 'i', 'p', 'g', 'w', 'u')
  local s = { e = v[1], n = num(v[2]), o = v[3] or '0', r = v[5], m = num(v[6]), i = num(v[7]) }
  if v[4] then s.h, s.ttl = string.sub(v[4], 1, 32), num(string.sub(v[4], 33)) end
  if v[8] then s.p, s.po = string.sub(v[8], 1, 32), string.sub(v[8], 33) end
  s.g = num(v[9])
  if s.e and not v[11] then s.e = go_on(meta, s.e, s.n, v[10], RUN) end
  s.closed = -s.g > now
  s.known = s.e and not s.closed and (s.h or s.m > now or s.i > now or s.g > now) and true or false
  return s
end
local function expire(meta, s)
  if not s.h then call('PEXPIREAT', meta, math.max(s.m, s.i, math.abs(s.g))) end
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
-- Whether a position is of one of these epochs, and not above its head.
local function among(v, epoch, n)
  for at = 1, #v, 14 do
    if string.sub(v, at, at + 7) == epoch then return n <= offset(v, at + 8) end
  end
  return false
end
local function before(meta) return call('HGET', meta, 'v') or '' end
-- What a log holds after a position: start, gap, entries.
local function after(meta, log, e, n, age, from, at)
  local len = call('LLEN', log) / 2
  while len > 0 do
    if struct.unpack('>I6', call('LINDEX', log, 0)) + age > now then break end
    call('LTRIM', log, 2, -1)
    len = len - 1
  end
  local first = n + 1 - len
  local wanted = offset(from, at + 8)
  local epoch = string.sub(from, at, at + 7)
  local exact = (epoch == e or among(before(meta), epoch, wanted)) and wanted <= n and wanted + 1 >= first
  local start = exact and wanted + 1 or first
  local entries = start <= n and call('LRANGE', log, 2 * (start - first), -1) or {}
  return start - 1, not exact, entries
end
-- How long beyond its info a session's subscriptions stay for a node that sweeps them.
local GRACE = 3600000

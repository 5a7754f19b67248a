-- ARGV: world, id, node, lease ttl, owner epoch, positions, age, broadcasts' age, how long a held
-- session stays, a new epoch, a new broadcast epoch, whether history is off: the holder counts then.
local node, owner, from = ARGV[3], ARGV[5], ARGV[6]
if not leased(node) then return done({ 'lease' }) end
topic('b', ARGV[11])
-- Not even the broadcasts are those it followed: this server has lost everything, and whoever has
-- not claimed the session since did not take it from anybody.
local wiped = not is_shared(string.sub(from, 15, 22), 0)
if wiped and (not s.e or (s.o == '0' and not s.h)) then
  local lives = s.i
  s = create(ARGV[10])
  if lives > now then call('HSET', meta, 'i', lives) end
elseif not s.known or s.o ~= owner or not (s.h == node or (not s.h and call('HEXISTS', meta, 'l') == 1)) then
  return done({ 'lost' })
elseif string.sub(from, 1, 8) == s.e and ARGV[12] == '1' then
  s.n = offset(from, 9)
  call('HSET', meta, 'n', s.n)
elseif string.sub(from, 1, 8) == s.e and offset(from, 9) > s.n then
  -- What the node was given is not in the log any more: its offsets must not be given again.
  call('DEL', log)
  s.e, s.n = ARGV[10], 0
  call('HSET', meta, 'e', s.e, 'n', 0)
end
local start, gap, own, shared, earlier = tail(s, log, from, tonumber(ARGV[7]), tonumber(ARGV[8]))
call('HDEL', meta, 'l')
if ARGV[12] == '1' then call('HSET', meta, 'u', '1') end
call('HSET', meta, 'o', owner, 'h', node .. ARGV[4], 'r', start)
call('PEXPIRE', meta, ARGV[9])
keep(node, id, ARGV[9])
return done({ 'ok', start, gap, own, shared, earlier })

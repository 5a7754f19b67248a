-- ARGV: the node whose index names it, stale after, when to look again at one that is busy, when a
-- closing is unfinished, how long a record lives; then the nodes that live.
-- Returns what is to become of its place in the index: '' it goes, else its score; then stale,
-- unfinished or nothing; its owner; why it closes.
local v = call('HMGET', reg, 's', 'w', 'a', 'x', 'o', 'y')
if not v[1] or v[1] == 'd' or v[2] ~= ARGV[1] then return { '', '', '', '' } end
local owner = v[5] or ''
if v[1] == 'c' then
  if v[4] + ARGV[4] > now then return { '-' .. v[4], '', owner, '' } end
  call('HSET', reg, 'x', text(now))
  return { text(-now), 'unfinished', owner, v[6] }
end
local busy, stale = false, v[3] + ARGV[2]
for n = 6, #ARGV do busy = busy or call('HEXISTS', reg, 'q:' .. ARGV[n]) == 1 end
if busy or stale > now then
  keep(ARGV[5])
  return { text(busy and math.max(stale, now + ARGV[3]) or stale), '', owner, '' }
end
close('stale', ARGV[5])
return { text(-now), 'stale', owner, 'stale' }

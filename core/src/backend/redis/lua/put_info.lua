-- ARGV: world, id, ttl, a new epoch, channel, node; then number and text of each document.
if s.closed then return -1 end
if not s.known then s = create(ARGV[4]) end
touch(id, s, meta, uris, tonumber(ARGV[3]))
local docs = { docs_of(id) }
for a = 7, #ARGV, 2 do call('SET', docs[tonumber(ARGV[a])], ARGV[a + 1], 'PXAT', s.i) end
call('PUBLISH', ARGV[5], 'I' .. ARGV[6] .. id)
return 1

-- ARGV: prefix, id, ttl, a new epoch, channel, node; then number and text of each document.
local id, ttl = ARGV[2], tonumber(ARGV[3])
local meta, _, _, uris = keys_of(id)
local s = load(meta)
if not s.known then s = create(id, ARGV[4]) end
touch(id, s, meta, uris, ttl)
local docs = { docs_of(id) }
for a = 7, #ARGV, 2 do call('SET', docs[tonumber(ARGV[a])], ARGV[a + 1], 'PXAT', s.i) end
call('PUBLISH', ARGV[5], 'I' .. ARGV[6] .. id)
return 1

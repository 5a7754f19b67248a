-- ARGV: prefix, id, channel, node.
local id = ARGV[2]
local meta, log, keys, uris = keys_of(id)
local s = load(meta)
unsubscribe_all(id, uris)
local had = call('DEL', docs_of(id)) > 0 or s.i > now
if s.e then
  call('HDEL', meta, 'i')
  s.i = 0
  if not s.h and s.m <= now then call('DEL', meta, log, keys) else expire(meta, s) end
end
call('PUBLISH', ARGV[3], 'I' .. ARGV[4] .. id)
return had and 1 or 0

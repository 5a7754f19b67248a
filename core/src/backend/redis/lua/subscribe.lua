-- ARGV: world, id, ttl, a new epoch, uri, max. 1 when it is new, 0 when it was there, -1 at the limit.
if s.closed then return done(-2) end
if not placed(s) then return again(s) end
local ttl, uri = tonumber(ARGV[3]), ARGV[5]
if not s.known then s = create(ARGV[4]) end
touch(id, s, meta, uris, ttl)
local new = call('SISMEMBER', uris, uri) == 0
if new and call('SCARD', uris) >= tonumber(ARGV[6]) then return done(-1) end
if new then
  call('SADD', uris, uri)
  call('PEXPIREAT', uris, s.i + GRACE)
end

-- ARGV: prefix, id, ttl, a new epoch, uri, max.
local id, ttl, uri = ARGV[2], tonumber(ARGV[3]), ARGV[5]
local meta, _, _, uris = keys_of(id)
local s = load(meta)
if not s.known then s = create(id, ARGV[4]) end
touch(id, s, meta, uris, ttl)
if call('SISMEMBER', uris, uri) == 1 then return 0 end
if call('SCARD', uris) >= tonumber(ARGV[6]) then return -1 end
call('SADD', P .. 'subscriptions:' .. uri, id)
call('PEXPIRE', P .. 'subscriptions:' .. uri, ttl + 2 * GRACE)
call('SADD', uris, uri)
call('PEXPIREAT', uris, s.i + GRACE)
call('ZADD', P .. 'due', s.i, id)
call('PEXPIRE', P .. 'due', ttl + 2 * GRACE)
return 1

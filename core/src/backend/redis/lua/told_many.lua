-- The replaced holder has been told. KEYS: session. ARGV: what was noted.
if redis.call('HGET', KEYS[1], 'p') == ARGV[1] then redis.call('HDEL', KEYS[1], 'p') end
return 1

-- A node holds a session no more; unless it claimed it again, which shows in the owner epoch.
-- KEYS: held. ARGV: id, owner epoch, or inf for a claim that came to nothing.
local at = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '-inf')
local gone = at <= tonumber(ARGV[2])
if ARGV[2] == 'inf' then gone = at == math.huge end
return gone and redis.call('ZREM', KEYS[1], ARGV[1]) or 0

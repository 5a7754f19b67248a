-- ARGV: node. The node before, if the session is open.
local v = call('HMGET', reg, 's', 'w')
if v[1] ~= 'o' then return false end
call('HSET', reg, 'w', ARGV[1])
return v[2]

-- ARGV: how long the tombstone stays. Returns node and owner of a session that was closing.
local v = call('HMGET', reg, 's', 'w', 'o', 'c', 'a', 'y')
if v[1] ~= 'c' then return false end
call('DEL', reg, meta)
call('HSET', reg, 's', 'd', 'w', v[2], 'c', v[4], 'a', v[5], 'y', v[6])
call('PEXPIRE', reg, ARGV[1])
call('HSET', meta, 'g', text(-now - ARGV[1]))
call('PEXPIRE', meta, ARGV[1])
return { v[2], v[3] or '' }

-- ARGV: prefix, node, ttl, how long held sessions stay, how long topics stay. Whether it had a lease.
local node = ARGV[2]
if not alive(node) then return 0 end
call('ZADD', NODES, now + ARGV[3], node)
call('PEXPIRE', NODES, ARGV[4])
for _, name in ipairs({ 'b', 'n' }) do call('PEXPIRE', (topic_keys(name)), ARGV[5]) end
return 1

-- ARGV: prefix, node, ttl, how long held sessions stay, how long topics stay, two new epochs.
call('ZADD', NODES, now + ARGV[3], ARGV[2])
call('PEXPIRE', NODES, ARGV[4])
local be, bn = topic('b', ARGV[6])
local ne, nn = topic('n', ARGV[7])
for _, name in ipairs({ 'b', 'n' }) do call('PEXPIRE', (topic_keys(name)), ARGV[5]) end
return { place(be, bn), place(ne, nn) }

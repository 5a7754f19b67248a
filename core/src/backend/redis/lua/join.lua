-- ARGV: prefix, node, ttl, how long held sessions stay, how long topics stay, two new epochs.
call('SET', P .. 'node:' .. ARGV[2], '1', 'PX', ARGV[3])
call('ZADD', P .. 'nodes', now + ARGV[3], ARGV[2])
call('PEXPIRE', P .. 'nodes', ARGV[4])
local be, bn = topic('b', ARGV[6])
local ne, nn = topic('n', ARGV[7])
call('PEXPIRE', P .. 'topic:{b}', ARGV[5])
call('PEXPIRE', P .. 'topic:{n}', ARGV[5])
return { place(be, bn), place(ne, nn) }

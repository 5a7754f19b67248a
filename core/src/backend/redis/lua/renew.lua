-- ARGV: prefix, node, ttl, how long held sessions stay, how long topics stay, scan cursor, renewals
-- in which every held session has its turn.
-- The sessions a node holds have their expiry put off a few at a time, so that a fleet that dies as
-- a whole leaves nothing for ever.
local node = ARGV[2]
if call('PEXPIRE', P .. 'node:' .. node, ARGV[3]) == 0 then return { 0, '0' } end
call('ZADD', P .. 'nodes', now + ARGV[3], node)
call('PEXPIRE', P .. 'nodes', ARGV[4])
call('PEXPIRE', P .. 'topic:{b}', ARGV[5])
call('PEXPIRE', P .. 'topic:{n}', ARGV[5])
local held = call('SCARD', P .. 'held:' .. node)
if held == 0 then return { 1, '0' } end
call('PEXPIRE', P .. 'held:' .. node, ARGV[4])
local some = call('SSCAN', P .. 'held:' .. node, ARGV[6], 'COUNT', math.ceil(held / tonumber(ARGV[7])))
for _, id in ipairs(some[2]) do call('PEXPIRE', (keys_of(id)), ARGV[4]) end
return { 1, some[1] }

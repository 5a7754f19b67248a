-- ARGV: reason, how long until it is finished at the latest.
-- Returns 1 begun, 2 under way, 0 gone; the node; and now.
local v = call('HMGET', reg, 's', 'w')
if v[1] == 'c' then return { 2, v[2], now } end
if v[1] ~= 'o' then return { 0, '', now } end
close(ARGV[1], ARGV[2])
return { 1, v[2], now }

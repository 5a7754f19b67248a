-- Puts off the expiry of what a node holds, some sessions at a time, so that a fleet that dies as a
-- whole leaves nothing for ever.
-- ARGV: prefix, node, how long held sessions stay, scan cursor, renewals in which each has its turn.
-- Returns the cursor, and sessions that are gone (evicted, say) though the node holds them.
local held = held_by(ARGV[2])
local count = call('SCARD', held)
if count == 0 then return { '0', {} } end
call('PEXPIRE', held, ARGV[3])
local some = call('SSCAN', held, ARGV[4], 'COUNT', math.ceil(count / tonumber(ARGV[5])))
local lost = {}
for _, one in ipairs(some[2]) do
  if call('PEXPIRE', (keys_of(one)), ARGV[3]) == 0 then
    call('SREM', held, one)
    lost[#lost + 1] = one
  end
end
return { some[1], lost }

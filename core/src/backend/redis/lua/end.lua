-- ARGV: world, id, reason, age. Whether there was a live holder.
if not sure(s) then return again(s) end
-- Nobody reclaims what was ended.
call('HDEL', meta, 'l')
if not s.h then return done(0) end
local live = alive(s.h)
tell_end(id, s, ARGV[3])
unhold(id, s, meta, fresh(s, log), tonumber(ARGV[4]))
return done(live and 1 or 0)

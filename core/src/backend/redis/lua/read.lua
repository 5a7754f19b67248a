-- ARGV: world, id, positions, age, broadcasts' age; with history off the head, or nothing; then, when it
-- is for the holder, node and owner epoch.
if not s.e then return done(false) end
if string.sub(ARGV[6], 1, 8) == s.e then s.n = offset(ARGV[6], 9) end
local start, gap, own, shared, earlier = tail(s, log, ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]))
if ARGV[7] and gap == 0 and (s.h ~= ARGV[7] or s.o ~= ARGV[8]) then return done('taken') end
return done({ start, gap, own, shared, earlier })

-- Puts off the expiry of a session that a node holds. ARGV: world, id, node, ms. Whether it does; -1
-- when the session is gone.
if not s.e then return done(-1) end
if s.h ~= ARGV[3] then return done(0) end
call('PEXPIRE', meta, ARGV[4])
return done(1)

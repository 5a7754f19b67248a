-- Unholds a session of a node. ARGV: world, id, age, node.
if s.h ~= ARGV[4] or not sure(s) then return done(0) end
tell_end(id, s, 'f')
unhold(id, s, meta, fresh(s, log), tonumber(ARGV[3]))
call('HSET', meta, 'l', '1')
return done(1)

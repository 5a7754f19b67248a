-- Removes the subscriptions of a session whose info ran out; or only says which they are.
-- ARGV: world, id, look. Returns until when it lives, or those.
if s.i > now then return done(s.i) end
local gone = call('SMEMBERS', uris)
if ARGV[3] ~= 'look' then call('DEL', uris) end
return done(gone)

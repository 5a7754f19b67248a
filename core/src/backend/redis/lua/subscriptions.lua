-- ARGV: world, id.
if s.i <= now then return done({}) end
return done(call('SMEMBERS', uris))

-- ARGV: world, id.
return done(s.known and 1 or 0)

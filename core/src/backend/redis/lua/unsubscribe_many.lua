-- ARGV: world, id, uri.
return done(call('SREM', uris, ARGV[3]))

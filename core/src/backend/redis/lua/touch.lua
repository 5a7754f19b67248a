-- ARGV: world, id, ttl, a new epoch or nothing. Whether there is info; until when.
if s.closed and ARGV[4] ~= '' then return done(-1) end
if ARGV[4] ~= '' and not placed(s) then return again(s) end
if not s.known and ARGV[4] ~= '' then s = create(ARGV[4]) end
if s.i <= now and ARGV[4] == '' then return done(0) end
touch(id, s, meta, uris, tonumber(ARGV[3]))
return done(s.i)

-- ARGV: world, id, owner epoch, positions, age; with history off the head.
if not s.e or s.o ~= ARGV[3] then return done(0) end
call('HDEL', meta, 'l')
if ARGV[6] and string.sub(ARGV[6], 1, 8) == s.e then
  call('HSET', meta, 'n', offset(ARGV[6], 9))
  call('HDEL', meta, 'u')
end
if s.h then
  unhold(id, s, meta, ARGV[4], tonumber(ARGV[5]))
else
  call('HSET', meta, 'r', ARGV[4])
end
return done(1)

-- Makes a log, or lets it be known for longer. ARGV: world, id, a new epoch, for how long.
if not placed(s) then return again(s) end
if not s.known then s = create(ARGV[3]) end
if not s.h then
  s.m = math.max(s.m, now + ARGV[4])
  call('HSET', meta, 'm', string.format('%d', s.m))
  expire(meta, s)
end
return done(1)

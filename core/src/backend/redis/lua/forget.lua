-- ARGV: world, id, a new epoch.
if not s.e then return done(0) end
if not sure(s) or ((s.i > now or s.g ~= 0) and not placed({})) then return again(s) end
local had = s.h or s.m > now or call('EXISTS', log) + call('EXISTS', keys) > 0
tell_end(id, s, 't')
if s.h then drop(s.h, id, s) end
if s.i > now or s.g ~= 0 then
  local i = s.i
  s = create(ARGV[3])
  s.i = i
  if i > now then call('HSET', meta, 'i', i) end
  expire(meta, s)
else
  for k = 1, 3 do call('DEL', KEYS[k]) end
end
return done(had and 1 or 0)

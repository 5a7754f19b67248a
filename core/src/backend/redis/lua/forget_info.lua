-- ARGV: world, id. Whether there was info.
local had = s.i > now
unsubscribe_all(id, uris)
if s.e then
  call('HDEL', meta, 'i')
  s.i = 0
  if s.h or s.m > now or s.g ~= 0 then expire(meta, s) else for k = 1, 3 do call('DEL', KEYS[k]) end end
end

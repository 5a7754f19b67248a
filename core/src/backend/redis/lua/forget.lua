-- ARGV: prefix, id, a new epoch.
local id = ARGV[2]
local meta, log, keys = keys_of(id)
local s = load(meta)
if not s.e then return 0 end
local had = s.h or s.m > now or call('EXISTS', log, keys) > 0
if s.h then
  if alive(s.h) then tell_end(id, s, 't') end
  call('SREM', P .. 'held:' .. s.h, id)
end
call('DEL', meta, log, keys)
if s.i > now then
  create(id, ARGV[3])
  call('HSET', meta, 'i', s.i)
  call('PEXPIREAT', meta, s.i)
end
return had and 1 or 0

-- ARGV: n no access, y access, o and an owner: access if it is theirs; every how many milliseconds an
-- access is noted; how long a record lives.
-- Returns now, and the record.
local v = call('HMGET', reg, 's', 'o', 'a')
local theirs = ARGV[1] == 'y' or ARGV[1] == 'o' .. (v[2] or '')
if theirs and v[1] == 'o' and now - v[3] >= tonumber(ARGV[2]) then
  call('HSET', reg, 'a', text(now))
  keep(ARGV[3])
end
return { now, call('HGETALL', reg) }

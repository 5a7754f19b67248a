-- ARGV: node, how many requests it serves, how long a record lives. Whether the session is open.
local open = call('HGET', reg, 's') == 'o'
if not open or ARGV[2] == '0' then
  call('HDEL', reg, 'q:' .. ARGV[1])
else
  call('HSET', reg, 'q:' .. ARGV[1], ARGV[2])
end
if not open then return 0 end
call('HSET', reg, 'a', text(now))
keep(ARGV[3])
return 1

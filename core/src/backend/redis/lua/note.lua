-- With history off: what find.lua does, for an event with an idempotency key, which is noted. ARGV:
-- prefix, id, key, age. Returns d for a duplicate.
local at, age = call('ZSCORE', keys, ARGV[3]), tonumber(ARGV[4])
if at and tonumber(at) + age > now then return 'd' end
if s.h and alive(s.h) then
  call('ZREMRANGEBYSCORE', keys, '-inf', now - age)
  call('ZADD', keys, now, ARGV[3])
  call('ZREMRANGEBYRANK', keys, 0, -1025)
  call('PEXPIRE', keys, ARGV[4])
end

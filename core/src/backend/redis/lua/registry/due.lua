-- What a node's index says is to be looked at. KEYS: index. ARGV: when a closing is unfinished, how
-- many, how long the index lives. Returns now, how many there are, how many of them close, and who.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local from = ARGV[1] == '' and '0' or string.format('%d', ARGV[1] - now)
return { now, redis.call('ZCARD', KEYS[1]), redis.call('ZCOUNT', KEYS[1], '-inf', '(0'),
  redis.call('ZRANGEBYSCORE', KEYS[1], from, string.format('%d', now), 'LIMIT', 0, ARGV[2]) }

-- A page of an index. KEYS: index. ARGV: the last score and id of the page before, or '-inf' and '';
-- how many. Returns ids and scores.
local min, last, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
-- Where that one has moved on, those of its score are shown again rather than left out.
local skip = last ~= '' and redis.call('ZSCORE', KEYS[1], last) == min
local out, at = {}, 0
while #out < 2 * limit do
  local some = redis.call('ZRANGEBYSCORE', KEYS[1], min, '+inf', 'WITHSCORES', 'LIMIT', at, limit)
  for n = 1, #some, 2 do
    if not skip and #out < 2 * limit then
      out[#out + 1] = some[n]
      out[#out + 1] = some[n + 1]
    end
    if some[n] == last then skip = false end
  end
  if #some < 2 * limit then break end
  at = at + limit
end
return out

-- What a server had given positions for may be lost when another takes over, or it starts again. So the
-- log of a key goes on in another epoch with the first look at it in another run of a server (w: the run
-- of the last one); v lists the epochs before, the last first, each with the head it had. Up to that
-- head, its positions are positions here. A run that is not known is none.
local function go_on(key, e, n, w, run)
  if w == run or run == '' then return e end
  if not w then
    redis.call('HSET', key, 'w', run)
    return e
  end
  local v = e .. struct.pack('>I6', n) .. (redis.call('HGET', key, 'v') or '')
  e = string.gsub(string.sub(redis.sha1hex(e .. run), 1, 16), '%x%x', function(x) return string.char(tonumber(x, 16)) end)
  redis.call('HSET', key, 'e', e, 'w', run, 'v', string.sub(v, 1, 112))
  return e
end

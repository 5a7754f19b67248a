-- Says: how many events. An event for a stream that tmcp's manager holds goes there and nowhere else:
-- in the log, it would come a second time.
local keys = keys_of(id)
if not holder(keys, { P, id }) and peer(id) then
  local t = call('TIME')
  local now, out = t[1] * 1000 + math.floor(t[2] / 1000), {}
  for a = #ARGV - 2 * extra + 1, #ARGV, 2 do
    local key, state = ARGV[a + 1], 'a'
    if key ~= '' then
      local at = call('ZSCORE', keys[3], key)
      if at and tonumber(at) + age > now then state = 'd' end
    end
    if state == 'a' then
      call('PUBLISH', 'session:' .. id, ARGV[a])
      if key ~= '' then
        call('ZADD', keys[3], now, key)
        call('ZREMRANGEBYRANK', keys[3], 0, -1025)
        call('PEXPIRE', keys[3], own[5])
      end
    end
    out[#out + 1] = state
  end
  return table.concat(out)
end
local out = main(KEYS, ARGV)
if string.find(out, '[^x]') or call('EXISTS', keys[1]) == 1 or not has_documents(id) then return out end
-- tmcp's manager made the session known by its info.
put(keys, { P, id, own[4], own[7], P .. 'nobody', node })
return main(KEYS, ARGV)

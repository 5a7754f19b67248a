-- Says: how many events.
local out = main(KEYS, ARGV)
local payloads, first = {}, #ARGV - 2 * extra
for n = 1, #out do
  if string.sub(out, n, n) == 'a' then payloads[#payloads + 1] = ARGV[first + 2 * n - 1] end
end
if id == 'n' then
  -- JSON may end in a space; what tmcp's manager sends never does, and this library's nodes have it.
  for _, payload in ipairs(payloads) do call('PUBLISH', 'tmcp:subscriptions', payload .. ' ') end
  return out
end
local b = call('HMGET', KEYS[1], 'e', 'n')
for _, channel in ipairs(call('PUBSUB', 'CHANNELS', 'delete:session:*')) do
  local id = string.sub(channel, 16)
  local keys = keys_of(id)
  if peer(id) and not holder(keys, { P, id }) then
    for _, payload in ipairs(payloads) do call('PUBLISH', 'session:' .. id, payload) end
    -- Not again when the session moves here.
    local from = call('HGET', keys[1], 'r')
    if from then call('HSET', keys[1], 'r', string.sub(from, 1, 14) .. b[1] .. struct.pack('>I6', b[2])) end
  end
end
return out

-- ARGV: prefix, channel, how many.
-- Returns whether more is due, then the nodes whose lease ran out.
local found = { 0 }
for _, node in ipairs(call('ZRANGEBYSCORE', P .. 'nodes', '-inf', now, 'LIMIT', 0, 16)) do
  if not alive(node) then found[#found + 1] = node end
end
local due = call('ZRANGEBYSCORE', P .. 'due', '-inf', now, 'LIMIT', 0, ARGV[3])
for _, id in ipairs(due) do
  local meta, _, _, uris = keys_of(id)
  local s = load(meta)
  if s.i > now then
    call('ZADD', P .. 'due', s.i, id)
  else
    unsubscribe_all(id, uris)
    call('PUBLISH', ARGV[2], 'I' .. string.rep('0', 32) .. id)
  end
end
if #due == tonumber(ARGV[3]) then found[1] = 1 end
return found

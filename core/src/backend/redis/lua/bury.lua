-- Unholds some of what a node holds; forgets the node when nothing is left.
-- ARGV: prefix, node, age, how many.
local node = ARGV[2]
local some = call('SRANDMEMBER', P .. 'held:' .. node, ARGV[4])
for _, id in ipairs(some) do
  local meta, log = keys_of(id)
  local s = load(meta)
  if s.h == node then
    unhold(id, s, meta, fresh(s, log), tonumber(ARGV[3]))
  else
    call('SREM', P .. 'held:' .. node, id)
  end
end
if #some == tonumber(ARGV[4]) then return 1 end
call('DEL', P .. 'node:' .. node)
call('ZREM', P .. 'nodes', node)
return 0

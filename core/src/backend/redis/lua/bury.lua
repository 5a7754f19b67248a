-- Unholds some of what a node holds; forgets the node when nothing is left.
-- ARGV: prefix, node, age, how many, whether only when its lease has run out.
local node = ARGV[2]
if ARGV[5] == '1' and alive(node) then return 0 end
local some = call('SRANDMEMBER', held_by(node), ARGV[4])
for _, one in ipairs(some) do
  local its, its_log = keys_of(one)
  local of = load(its)
  if of.h == node then
    unhold(one, of, its, fresh(of, its_log), tonumber(ARGV[3]))
    call('HSET', its, 'l', '1')
  else
    call('SREM', held_by(node), one)
  end
end
if #some == tonumber(ARGV[4]) then return 1 end
call('DEL', held_by(node))
call('ZREM', NODES, node)
return 0

-- The subscribers of a resource (KEYS[1]), which this script says. tmcp's manager finds what is left of
-- a deleted session by looking at every key; this takes it away where it is met.
local out, others = {}, false
for _, id in ipairs(call('SMEMBERS', KEYS[1])) do
  local keys = keys_of(id)
  if call('EXISTS', keys[1], available(id)) > 0 or has_documents(id) or listens(id) then
    out[#out + 1] = id
    others = others or call('SISMEMBER', keys[4], extra) == 0
  else
    call('SREM', KEYS[1], id)
  end
end
-- Nobody puts off the end of a set for sessions of tmcp's manager.
if others then call('PERSIST', KEYS[1]) end
return out

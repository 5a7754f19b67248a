-- Lets tmcp's managers know for another while that this node holds these sessions (the arguments behind the first).
-- Returns those that one of them has taken.
local taken = {}
for a = 2, #ARGV do
  local id = ARGV[a]
  local by = call('HGET', keys_of(id)[1], 'h')
  if by and string.sub(by, 1, 32) == node then
    if call('GET', available(id)) == 'active' and listens(id) then
      taken[#taken + 1] = id
    else
      call('SET', available(id), node, 'PX', AVAILABLE_MS)
    end
  end
end
return taken

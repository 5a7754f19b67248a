-- Says: r when tmcp's manager has taken over.
local out = main(KEYS, ARGV)
if extra ~= 'r' and peer(id) then
  close_peer(id)
  out = 1
end
if not holder(KEYS, { P, id }) then vacate(id) end
return out

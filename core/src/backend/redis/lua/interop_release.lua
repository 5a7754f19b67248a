local owner = ARGV[3]
local out = main(KEYS, ARGV)
if not holder(KEYS, { P, id }) then vacate(id) end
-- What tmcp's managers sent before this is still this node's, however late it hears of it.
call('PUBLISH', P .. 'to:' .. node, 'R' .. string.rep('0', 20 - #owner) .. owner .. id)
return out

-- Says: 0 when a live stream is not to be replaced.
local there = peer(id)
if there and extra == '0' then return { 'conflict' } end
local out = main(KEYS, ARGV)
if out[1] ~= 'ok' then return out end
if there then close_peer(id) end
call('SET', available(id), node, 'PX', AVAILABLE_MS)
-- Between this and the end of the stream, on one connection, what tmcp's managers send is this node's.
call('PUBLISH', P .. 'to:' .. node,
  'O' .. (there and '1' or '0') .. string.rep('0', 20 - #out[2]) .. out[2] .. id)
return out

-- What the scripts share that serve a fleet with tmcp's own managers in it: each is one of the others
-- (`main`), with something before and after. Their own arguments are the last seven: prefix, id (or a
-- topic's name), node, how long closed streams are remembered, age of retention, what the script says,
-- a new epoch.
local own, RUN = {}, table.remove(ARGV)
for n = 7, 1, -1 do own[n] = table.remove(ARGV) end
local P, id, node, age, extra = own[1], own[2], own[3], tonumber(own[5]), own[6]
local call = redis.call
-- As long as tmcp's own manager lets its key live.
local AVAILABLE_MS = 10000
local function keys_of(id)
  local t = '{' .. string.gsub(id, '[%%{}]', function(c) return string.format('%%%02X', string.byte(c)) end) .. '}'
  return { P .. 'session:' .. t, P .. 'log:' .. t, P .. 'keys:' .. t, P .. 'uris:' .. t }
end
local function available(id) return 'available:session:' .. id end
local function closed(id) return P .. 'interop:closed:' .. id end
-- tmcp's manager subscribes to this channel of each stream it holds, this library to their pattern.
local function listens(id) return call('PUBSUB', 'NUMSUB', 'delete:session:' .. id)[2] > 0 end
-- Whether tmcp's manager holds a stream of the session. Its key alone does not say: it may run out
-- under a live stream, and outlives a dead one. Nor does its subscription: that outlives a stream which
-- somebody else closed, and a message to that one ends the process.
local function peer(id)
  if not listens(id) then return false end
  if call('GET', available(id)) ~= 'active' then return call('EXISTS', closed(id)) == 0 end
  call('DEL', closed(id))
  return true
end
local function note_closed(id) call('SET', closed(id), '1', 'PX', own[4]) end
-- The message says that it is not from tmcp's manager, which sends none and reads none.
local function close_peer(id)
  call('PUBLISH', 'delete:session:' .. id, 'mcp-sessions')
  note_closed(id)
  call('DEL', available(id))
end
local function vacate(id)
  local by = call('GET', available(id))
  if by and by ~= 'active' then call('DEL', available(id)) end
end
local function has_documents(id)
  return call('EXISTS', P .. 'client_info:' .. id, P .. 'client_capabilities:' .. id, P .. 'log_level:' .. id,
    P .. 'protocol_version:' .. id, P .. 'initialize_params:' .. id) > 0
end

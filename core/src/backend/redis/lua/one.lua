-- How a script reaches what is not the session's own, where all keys are on one server.
-- ARGV[1] is the prefix.
local P = ARGV[1]
local NODES, DUE = P .. 'nodes:{all}', P .. 'due:{all}'
local function topic_keys(name)
  return P .. 'topic:{all}' .. name, P .. 'topiclog:{all}' .. name, P .. 'topickeys:{all}' .. name
end
local function held_by(node) return P .. 'held:' .. node end
-- A session's id in the names of its keys, as a hash tag.
local function keys_of(id)
  local t = '{' .. string.gsub(id, '[%%{}]', function(c) return string.format('%%%02X', string.byte(c)) end) .. '}'
  return P .. 'session:' .. t, P .. 'log:' .. t, P .. 'keys:' .. t, P .. 'uris:' .. t
end
local function docs_of(id)
  return P .. 'client_info:' .. id, P .. 'client_capabilities:' .. id, P .. 'log_level:' .. id,
    P .. 'protocol_version:' .. id, P .. 'initialize_params:' .. id
end
-- A node's lease ends at its score.
local function alive(node) return num(call('ZSCORE', NODES, node)) > now end
local leased = alive
-- Nothing of other keys has to be looked up beforehand.
local function sure() return true end
local placed = sure
local again = sure
local function done(answer) return answer end
local function topic(name, epoch)
  local meta, log, keys = topic_keys(name)
  local v = call('HMGET', meta, 'e', 'n', 'w')
  if v[1] then return go_on(meta, v[1], num(v[2]), v[3], RUN), num(v[2]) end
  if not epoch then return NONE, 0 end
  call('DEL', log, keys)
  call('HSET', meta, 'e', epoch, 'n', 0, 'w', RUN)
  call('PEXPIRE', meta, 3600000)
  return epoch, 0
end
-- When a holder last renewed its lease, and where the broadcasts since then begin.
local function renewed(s)
  local at = num(call('ZSCORE', NODES, s.h)) - s.ttl
  local _, bn = topic('b')
  local _, log = topic_keys('b')
  return at, since(log, bn, at)
end
local function broadcasts(from, age)
  local e, n = topic('b')
  local meta, log = topic_keys('b')
  local start, gap, entries = after(meta, log, e, n, age, from, 15)
  return place(e, start), gap, entries, before(meta)
end
-- Whether a position is one of the broadcasts.
local function is_shared(epoch, n)
  return epoch == topic('b') or among(before((topic_keys('b'))), epoch, n)
end
local function tell(node, message) call('PUBLISH', P .. 'to:' .. node, message) end
local function replaced() end
local function keep(node, id, ms)
  call('SADD', held_by(node), id)
  call('PEXPIRE', held_by(node), ms)
end
local function drop(node, id) call('SREM', held_by(node), id) end
-- Removes a session's resource subscriptions.
local function unsubscribe_all(id, uris)
  for _, uri in ipairs(call('SMEMBERS', uris)) do call('SREM', P .. 'subscriptions:' .. uri, id) end
  call('DEL', uris)
  call('ZREM', DUE, id)
end
-- Lets everything live on that ends with a session's info.
local function prolong(id, s, ttl, uris)
  for _, doc in ipairs({ docs_of(id) }) do call('PEXPIREAT', doc, s.i) end
  if #uris == 0 then return end
  call('ZADD', DUE, s.i, id)
  call('PEXPIRE', DUE, ttl + 2 * GRACE)
  for _, uri in ipairs(uris) do call('PEXPIRE', P .. 'subscriptions:' .. uri, ttl + 2 * GRACE) end
end

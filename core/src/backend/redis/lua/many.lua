-- How a session's script knows of what is not its own in a cluster, where it may touch the keys of
-- its own slot alone. ARGV[1] is what was seen of the other keys just before: whether the lease of
-- the caller is good; a holder, whether its lease is, and when it was renewed; the head of the
-- broadcasts, and where those since that renewal begin; the epochs they had before. When the session
-- has another holder by now, the script changes nothing and asks to be called again. What has to be
-- done to other keys is returned: each as kind, name and value.
local SEEN = ARGV[1]
local seen = { leased = string.sub(SEEN, 1, 1) == '1', holder = string.sub(SEEN, 2, 33), alive = string.sub(SEEN, 34, 34) == '1' }
local effects = {}
local function effect(kind, name, value)
  effects[#effects + 1] = kind
  effects[#effects + 1] = name
  effects[#effects + 1] = value
end
local function sure(s) return not s.h or s.h == seen.holder end
-- A session that is new begins at the head of the broadcasts, so that has to be seen.
local function placed(s) return s.known or string.sub(SEEN, 35, 42) ~= NONE end
local function again(s) return { 'again', s.h or '', s.ttl or 0 } end
local function done(answer) return { 'done', answer, effects } end
local function alive(node) return node == seen.holder and seen.alive end
local function leased() return seen.leased end
local function topic() return string.sub(SEEN, 35, 42), offset(SEEN, 43) end
local function renewed() return offset(SEEN, 49), offset(SEEN, 55) end
-- They are read once the session's own events are.
local function broadcasts(from) return string.sub(from, 15, 28), false, {}, '' end
local function is_shared(epoch, n) return epoch == topic() or among(string.sub(SEEN, 61), epoch, n) end
local function tell(node, message) effect('tell', node, message) end
-- Until it has been told: whoever finds this in the place of a claimer that died tells it.
local function replaced(s) call('HSET', KEYS[1], 'p', s.h .. s.o) end
local function keep() end
local function drop(node, _, s) effect('drop', node, s.o) end
local function unsubscribe_all(_, uris)
  for _, uri in ipairs(call('SMEMBERS', uris)) do effect('unsubscribe', uri, '') end
  call('DEL', uris)
end
local function prolong(_, s, _, uris)
  effect('prolong', string.format('%d', s.i), '')
  for _, uri in ipairs(uris) do effect('subscribed', uri, '') end
end

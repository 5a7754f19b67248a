-- ARGV: world, id, a new epoch, how long it lives unless it is accessed, node, owner; then metadata, if
-- there is any. KEYS: those of the session, registry.
-- Returns when it was registered; or what is there: 0, state, node, owner.
local reg, ttl = KEYS[5], tonumber(ARGV[4])
local old = call('HMGET', reg, 's', 'w', 'o')
if old[1] then return done({ 0, old[1], old[2], old[3] or '' }) end
if not placed(s) then return again(s) end
if not s.known then s = create(ARGV[3]) end
s.g = now + ttl
call('HSET', meta, 'g', string.format('%d', s.g))
expire(meta, s)
call('HSET', reg, 's', 'o', 'w', ARGV[5], 'c', string.format('%d', now), 'a', string.format('%d', now))
if ARGV[6] ~= '' then call('HSET', reg, 'o', ARGV[6]) end
if ARGV[7] then call('HSET', reg, 'j', ARGV[7]) end
call('PEXPIRE', reg, ttl)
return done({ now })

-- ARGV: prefix, id, uri.
local id, uri = ARGV[2], ARGV[3]
local _, _, _, uris = keys_of(id)
call('SREM', P .. 'subscriptions:' .. uri, id)
local removed = call('SREM', uris, uri)
if call('EXISTS', uris) == 0 then call('ZREM', P .. 'due', id) end
return removed

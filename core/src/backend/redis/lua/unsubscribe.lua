-- ARGV: prefix, id, uri.
local uri = ARGV[3]
call('SREM', P .. 'subscriptions:' .. uri, id)
local removed = call('SREM', uris, uri)
if call('EXISTS', uris) == 0 then call('ZREM', DUE, id) end
return removed

if not new then return 0 end
call('SADD', P .. 'subscriptions:' .. uri, id)
prolong(id, s, ttl, { uri })
return 1

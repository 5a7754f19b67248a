-- The nodes whose lease is good.
return call('ZRANGEBYSCORE', NODES, '(' .. string.format('%d', now), '+inf')

-- ARGV: prefix, how many. The nodes whose lease ran out, and sessions whose info is due.
return { call('ZRANGEBYSCORE', NODES, '-inf', now, 'LIMIT', 0, 16),
  call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, ARGV[2]) }

-- ARGV of the rest: channel, node.
had = call('DEL', docs_of(id)) > 0 or had
call('PUBLISH', ARGV[3], 'I' .. ARGV[4] .. id)
return had and 1 or 0

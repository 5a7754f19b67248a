-- Removes the subscriptions of sessions whose info ran out. ARGV: prefix, channel; then ids.
for a = 3, #ARGV do
  local one = ARGV[a]
  local its, _, _, its_uris = keys_of(one)
  local of = load(its)
  if of.i > now then
    call('ZADD', DUE, of.i, one)
  else
    unsubscribe_all(one, its_uris)
    call('PUBLISH', ARGV[2], 'I' .. string.rep('0', 32) .. one)
  end
end
return 0

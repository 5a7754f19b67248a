-- ARGV: prefix, name, position, age, a new epoch.
local e, n = topic(ARGV[2])
local its, events = topic_keys(ARGV[2])
if string.sub(ARGV[3], 1, 8) == e and offset(ARGV[3], 9) > n then
  -- What this node was given is not in the log any more: its offsets must not be given again.
  e = ARGV[5]
  call('HSET', its, 'e', e)
end
local start, gap, entries = after(its, events, e, n, tonumber(ARGV[4]), ARGV[3], 1)
return { place(e, start), gap and 1 or 0, entries, before(its) }

-- What many.lua is told. ARGV: prefix, caller or nothing, holder or nothing, its ttl, slack for clocks
-- that differ, a new epoch or nothing.
local e, n = topic('b', ARGV[6] ~= '' and ARGV[6])
local holder, at, shared = string.rep('0', 32), 0, n
local live = false
if ARGV[3] ~= '' then
  holder, live = ARGV[3], alive(ARGV[3])
  at = math.max(num(call('ZSCORE', NODES, holder)) - ARGV[4] - ARGV[5], 0)
  local _, log = topic_keys('b')
  shared = since(log, n, at)
end
return (ARGV[2] ~= '' and alive(ARGV[2]) and '1' or '0') .. holder .. (live and '1' or '0') .. place(e, n)
  .. struct.pack('>I6I6', at, shared) .. before((topic_keys('b')))

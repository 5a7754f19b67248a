-- ARGV: prefix, id, owner epoch, positions, age.
local id = ARGV[2]
local meta = keys_of(id)
local s = load(meta)
if not s.e or s.o ~= ARGV[3] then return 0 end
if s.h then
  unhold(id, s, meta, ARGV[4], tonumber(ARGV[5]))
else
  call('HSET', meta, 'r', ARGV[4])
end
return 1

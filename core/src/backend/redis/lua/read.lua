-- ARGV: prefix, id, positions, age, broadcasts' age.
local meta, log = keys_of(ARGV[2])
local s = load(meta)
if not s.e then return false end
local be, bn = topic('b')
return { tail(s, log, ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), be, bn) }

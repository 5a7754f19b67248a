-- ARGV: prefix, id, reason, age.
local meta, log = keys_of(ARGV[2])
local s = load(meta)
return end_holder(ARGV[2], s, meta, log, ARGV[3], tonumber(ARGV[4])) and 1 or 0

-- ARGV: prefix, id.
local s = load((keys_of(ARGV[2])))
return s.h and alive(s.h) and s.h or false

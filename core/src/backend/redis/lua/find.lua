-- With history off: who holds a session. ARGV: prefix, id. When nobody does, what is dropped now is a
-- gap to the next stream.
if s.h and alive(s.h) then return s.h end
if s.known then call('HINCRBY', meta, 'n', 1) end
return false

-- ARGV: world, id. The holder, if its lease is good.
if not s.h then return done(false) end
if not sure(s) then return again(s) end
return done(alive(s.h) and s.h)

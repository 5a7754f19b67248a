-- Also when it was there: whoever added it may have died before the rest was done.
prolong(id, s, ttl, { uri })
return done(new and 1 or 0)

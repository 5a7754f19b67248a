-- A program closed a stream: one that it did not hold itself still listens.
if listens(id) then note_closed(id) end
return 1

-- ARGV: world, id, node. The owner epoch, and where its stream started, if this node is the holder.
return done(s.h == ARGV[3] and { s.o, s.r })

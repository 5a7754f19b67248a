return done(had and 1 or 0)

-- ARGV: prefix, id.
return load((keys_of(ARGV[2]))).known and 1 or 0

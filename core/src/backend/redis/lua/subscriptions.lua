-- ARGV: prefix, id.
local meta, _, _, uris = keys_of(ARGV[2])
if load(meta).i <= now then return {} end
return call('SMEMBERS', uris)

-- ARGV: prefix, id, ttl. Returns false, or the five documents.
local id, ttl = ARGV[2], tonumber(ARGV[3])
local meta, _, _, uris = keys_of(id)
local s = load(meta)
local docs = call('MGET', docs_of(id))
local any = s.i > now
for n = 1, 5 do any = any or docs[n] and true end
if not any then return false end
if s.i > now then touch(id, s, meta, uris, ttl) end
return docs

-- ARGV: world, id, ttl. Returns false, or the five documents.
local docs, any = {}, s.i > now
-- Not MGET, to which a key of another type is as good as none.
for n, doc in ipairs({ docs_of(id) }) do
  docs[n] = call('GET', doc)
  any = any or docs[n] and true
end
if not any then return false end
if s.i > now then touch(id, s, meta, uris, tonumber(ARGV[3])) end
return docs

-- ARGV: prefix, id, node, lease ttl, kind, positions, replace, a new epoch, age, broadcasts' age,
-- how long a held session stays, a new broadcast epoch.
local id, node, age = ARGV[2], ARGV[3], tonumber(ARGV[9])
if not alive(node) then return { 'lease' } end
local meta, log = keys_of(id)
local s = load(meta)
if s.known and ARGV[7] == '0' and s.h and alive(s.h) then return { 'conflict' } end
local be, bn = topic('b', ARGV[12])
if not s.known then s = create(id, ARGV[8]) end
local from = ARGV[6]
if ARGV[5] == 'f' then from = fresh(s, log) end
if s.h then
  if alive(s.h) then tell_end(id, s, 'r') end
  if s.h ~= node then call('SREM', P .. 'held:' .. s.h, id) end
end
-- Grows with every claim, also when the session was forgotten in between.
local owner = math.max(tonumber(s.o) + 1, clock[1] * 1000000 + clock[2])
local start, gap, own, shared = tail(s, log, from, age, tonumber(ARGV[10]), be, bn)
local held = tonumber(ARGV[11])
call('HSET', meta, 'o', string.format('%.0f', owner), 'h', node .. ARGV[4], 'r', start)
call('PEXPIRE', meta, held)
call('SADD', P .. 'held:' .. node, id)
call('PEXPIRE', P .. 'held:' .. node, held)
return { 'ok', string.format('%.0f', owner), start, gap, own, shared }

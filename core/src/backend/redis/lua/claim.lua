-- ARGV: world, id, node, lease ttl, kind, positions, replace, a new epoch, age, broadcasts' age,
-- how long a held session stays, a new broadcast epoch; with history off the head as the claimer knows
-- it, or u.
local node, age, from = ARGV[3], tonumber(ARGV[9]), ARGV[6]
if not sure(s) then return again(s) end
if s.closed then return done({ 'gone' }) end
if not leased(node) then return done({ 'lease' }) end
local live = s.h and alive(s.h)
if s.known and ARGV[7] == '0' and live then return done({ 'conflict' }) end
topic('b', ARGV[12])
if not s.known then s = create(ARGV[8]) end
local head = ARGV[13] or ''
local lost = false
if head ~= '' then
  if s.h == node and string.sub(head, 1, 8) == s.e then
    s.n = offset(head, 9)
  elseif call('HEXISTS', meta, 'u') == 1 then
    -- Positions were given that nobody here knows: none of them may be given again.
    s.e, s.n, lost = ARGV[8], 0, not live
  end
  call('HSET', meta, 'e', s.e, 'n', s.n, 'u', '1')
end
if ARGV[5] == 'f' then from = lost and s.r or fresh(s, log) end
if s.h then
  tell_end(id, s, 'r')
  if live then replaced(s) end
  if s.h ~= node then drop(s.h, id, s) end
end
-- Grows with every claim, also when the session was forgotten in between.
local owner = string.format('%.0f', math.max(tonumber(s.o) + 1, clock[1] * 1000000 + clock[2]))
local start, gap, own, shared, earlier = tail(s, log, from, age, tonumber(ARGV[10]))
call('HDEL', meta, 'l')
call('HSET', meta, 'o', owner, 'h', node .. ARGV[4], 'r', start)
call('PEXPIRE', meta, ARGV[11])
keep(node, id, ARGV[11])
return done({ 'ok', owner, start, gap, own, shared, earlier })

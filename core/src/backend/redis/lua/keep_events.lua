-- Appends to a session's log, trims it, and notes where it stands. m: what was read of the session, in
-- accept.lua's order; log: two entries an event; n, bytes: the head and the bytes ever with these; of:
-- the time, what is kept, and whether something was changed.
local function keep_events(meta, log_key, m, log, n, bytes, of)
  local call, format = redis.call, string.format
  local now, age, events, limit, was = of.now, of.age, of.events, of.limit, tonumber(m[4] or 0)
  local len = call('RPUSH', log_key, unpack(log)) / 2
  of.changed = true
  local new = len == #log / 2
  -- How many bytes came before the first event that is kept: at least as many as this.
  local base = new and was or tonumber(m[5] or 0)
  local due = new or now - tonumber(m[6] or 0) > age / 4
  if len > events then
    call('LTRIM', log_key, -2 * events, -1)
    len = events
  end
  if due or bytes - base > limit then
    while true do
      local oldest, before = struct.unpack('>I6I6', call('LINDEX', log_key, 0))
      base = before
      -- The newest stays however large it is.
      if len == 1 or (oldest + age > now and bytes - base <= limit) then break end
      call('LTRIM', log_key, 2, -1)
      len = len - 1
    end
    if due then call('PEXPIRE', log_key, format('%d', age * 1.25 + 1)) end
    call('HSET', meta, 'n', format('%d', n), 't', format('%d', bytes), 'k', format('%d', base), 'x',
      due and format('%d', now) or m[6])
  else
    call('HSET', meta, 'n', format('%d', n), 't', format('%d', bytes))
  end
end

{post_one}(p_to text, p_payload text, p_relaxed boolean, p_events bigint, p_bytes bigint, p_age bigint)
returns text language plpgsql volatile
--body
-- What accept does, for one event without a key to one session: an idle server answers sooner. Returns
-- 'x' if it was dropped, else 'a' and the event's position.
declare
  v_now bigint := {now}();
  v_size bigint := octet_length(p_payload);
  v_shared bigint;
  v_life bigint;
  r record;
begin
  if p_relaxed then perform set_config('synchronous_commit', 'off', true); end if;
  select t.head, {known_life} into v_shared, v_life from {topics} t where t.name = 'b';
  if v_life is null then v_life := {life}(); end if;
  update {sessions} s set
    head = s.head + 1,
    bytes = s.bytes + v_size,
    base = case when s.head + 1 - s.base > p_events + p_events / 4 + 16
      or s.bytes + v_size - s.base_bytes > p_bytes + p_bytes / 4 + 65536
      then greatest(s.base, s.head + 1 - p_events) else s.base end,
    base_bytes = case when s.head + 1 - s.base > p_events + p_events / 4 + 16
      or s.bytes + v_size - s.base_bytes > p_bytes + p_bytes / 4 + 65536
      then greatest(s.base_bytes, s.bytes + v_size - p_bytes) else s.base_bytes end,
    due_ms = case when p_events > 0 then least(s.due_ms, v_now + p_age) else s.due_ms end,
    updated_at = now()
  where s.id = p_to and (s.holder is not null or s.remembered_ms > v_now or s.info_ms > v_now)
  returning s.epoch, s.head, s.holder, s.base = s.head - p_events as trim,
    s.base_bytes = s.bytes - p_bytes as cut,
    (select n.polls from {nodes} n where n.id = s.holder and n.lease_ms > v_now) as polls
  into r;
  if not found or (p_events = 0 and r.polls is null) then return 'x'; end if;
  if p_events > 0 then
    insert into {events} (epoch, n, at_ms, shared, payload) values (r.epoch, r.head, v_now, v_shared, p_payload);
    if r.trim or r.cut then
      perform {trim}(r.epoch, r.head, p_events, case when r.cut then p_bytes end, null);
    end if;
  end if;
  if not r.polls and v_size < 7500 then
    perform pg_notify('tmcp:' || r.holder, 'e' || p_to || ' ' || (r.epoch # v_life) || ' ' || r.head || ' ' || v_size
      || ':' || p_payload);
  elsif r.polls is not null then
    perform {tell}(r.holder, r.polls, 'e' || p_to || ' ' || (r.epoch # v_life) || ' ' || r.head || ' ' || v_size
      || ':' || p_payload);
  end if;
  return 'a' || (r.epoch # v_life) || ' ' || r.head;
end

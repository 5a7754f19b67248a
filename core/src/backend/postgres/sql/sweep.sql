{sweep}(
  p_most bigint, p_events bigint, p_bytes bigint, p_age bigint,
  p_shared_events bigint, p_shared_bytes bigint, p_shared_age bigint
) returns boolean language plpgsql volatile
--body
-- Removes some of what has expired; true when more is due. What another node sweeps is passed over.
declare
  v_now bigint := {now}();
  v_more boolean := false;
  v_seen integer := 0;
  v_oldest bigint;
  v_expired text[] := '{}';
  r record;
begin
  perform set_config('synchronous_commit', 'off', true);
  for r in select n.id from {nodes} n where n.lease_ms <= v_now limit 16 for update skip locked loop
    v_more := {bury}(r.id, p_age, p_most) or v_more;
  end loop;
  for r in select t.* from {topics} t where t.due_ms between 1 and v_now order by t.name for update skip locked loop
    perform {trim}(r.epoch, r.head, p_shared_events, p_shared_bytes, v_now - p_shared_age);
    delete from {keys} k where k.epoch = r.epoch and k.at_ms <= v_now - p_shared_age;
    select min(x.at_ms) into v_oldest from (
      select min(e.at_ms) as at_ms from {events} e where e.epoch = r.epoch
      union all select min(k.at_ms) from {keys} k where k.epoch = r.epoch) x;
    update {topics} t set due_ms = case when v_oldest is null then 0
      else greatest(v_oldest + p_shared_age, v_now + p_shared_age / 4) end
    where t.name = r.name;
  end loop;
  for r in
    select s.* from {sessions} s where s.due_ms <= v_now order by s.due_ms limit p_most for update skip locked
  loop
    v_seen := v_seen + 1;
    if r.info_ms > 0 and r.info_ms <= v_now then
      perform {drop_info}(array[r.id]);
      v_expired := v_expired || r.id;
      r.info_ms := 0;
    end if;
    if r.holder is null and r.remembered_ms <= v_now and r.info_ms = 0 then
      perform {restart}(r.id, r.epoch, false);
      delete from {sessions} s where s.id = r.id;
      continue;
    end if;
    perform {trim}(r.epoch, r.head, p_events, p_bytes, v_now - p_age);
    delete from {keys} k where k.epoch = r.epoch and k.at_ms <= v_now - p_age;
    select min(x.at_ms) into v_oldest from (
      select min(e.at_ms) as at_ms from {events} e where e.epoch = r.epoch
      union all select min(k.at_ms) from {keys} k where k.epoch = r.epoch) x;
    update {sessions} s set info_ms = r.info_ms,
      due_ms = least(case when v_oldest is not null then greatest(v_oldest + p_age, v_now + p_age / 4) end, nullif(r.info_ms, 0),
        case when r.holder is null and r.remembered_ms > v_now then r.remembered_ms end)
    where s.id = r.id;
  end loop;
  if v_expired <> '{}' then
    perform {tell_changed}('00000000-0000-0000-0000-000000000000', v_expired, v_now);
  end if;
  return v_more or v_seen >= p_most;
end

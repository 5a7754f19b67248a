{append}(
  p_scope text, p_log text, p_note boolean, p_payload text, p_events bigint, p_bytes bigint, p_age bigint
) returns table (epoch bigint, n bigint) language plpgsql volatile
--body
-- Appends to a log, which is made if there is none. Its row is locked to the end.
declare
  v_life bigint;
  v_now bigint;
  v_made boolean;
  v_posted text := 'x';
  s {sessions}%rowtype;
begin
  -- One that was noted lately is there for long enough: an idle server answers sooner.
  if not p_note and p_events > 0 then
    v_posted := {post_one}(p_log, p_payload, false, p_events, p_bytes, p_age);
  end if;
  if v_posted <> 'x' then
    epoch := split_part(substr(v_posted, 2), ' ', 1);
    n := split_part(v_posted, ' ', 2);
    return next;
    return;
  end if;
  v_life := {life}();
  loop
    v_now := {now}();
    insert into {sessions} (id, resume_shared, remembered_ms, due_ms)
    select p_log, t.head, v_now + 2 * p_age, v_now + 2 * p_age from {topics} t where t.name = 'b'
    on conflict do nothing;
    v_made := found;
    select * into s from {sessions} x where x.id = p_log for update;
    exit when s.id is not null;
  end loop;
  v_now := {now}();
  if s.holder is null and s.remembered_ms <= v_now and s.info_ms <= v_now then
    perform {restart}(s.id, s.epoch, false);
    delete from {sessions} x where x.id = p_log;
    insert into {sessions} (id, resume_shared, remembered_ms, due_ms)
    select p_log, t.head, v_now + 2 * p_age, v_now + 2 * p_age from {topics} t where t.name = 'b';
    v_made := true;
  elsif s.holder is null and s.remembered_ms < v_now + p_age * 3 / 2 then
    update {sessions} x set remembered_ms = v_now + 2 * p_age where x.id = p_log;
  end if;
  if v_made or p_note then
    insert into {logs} as l (scope, log, until_ms) values (p_scope, p_log, v_now + 2 * p_age)
    on conflict (scope, log) do update set until_ms = excluded.until_ms;
  end if;
  perform {post}(array[p_log], array[1], array[p_payload], null, v_life, p_events, p_bytes, p_age);
  return query select x.epoch # v_life, x.head from {sessions} x where x.id = p_log;
end

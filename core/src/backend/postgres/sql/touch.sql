{touch}(p_ids text[], p_ttl bigint, p_now bigint) returns void language plpgsql volatile
--body
-- Makes sessions known for their info, and lets it live on once a quarter of its time has passed.
-- Their rows are locked from here on. No id is named twice.
declare
  v_shared bigint;
  v_fine bigint;
  r record;
begin
  -- Most are there already and have time left: they are only locked, all of them in one order.
  select count(*) filter (where x.is_fine) into v_fine from (
    select s.info_ms - p_now >= p_ttl * 3 / 4 as is_fine from {sessions} s
    where s.id = any(p_ids) order by s.id collate "C" for update
  ) x;
  perform {refuse_closed}(p_ids, p_now);
  if v_fine = cardinality(p_ids) then return; end if;
  select t.head into v_shared from {topics} t where t.name = 'b';
  insert into {sessions} as s (id, resume_shared, info_ms, due_ms)
  select i.id, v_shared, p_now + p_ttl, p_now + p_ttl from unnest(p_ids) i(id) order by i.id collate "C"
  on conflict do nothing;
  for r in
    select s.* from {sessions} s where s.id = any(p_ids) and s.info_ms - p_now < p_ttl * 3 / 4
    order by s.id collate "C" for update
  loop
    if r.holder is null and r.remembered_ms <= p_now and r.info_ms <= p_now then
      -- What has expired but was not swept yet is as good as gone.
      perform {restart}(r.id, r.epoch, r.info_ms > 0);
      delete from {sessions} s where s.id = r.id;
      insert into {sessions} (id, resume_shared, info_ms, due_ms) values (r.id, v_shared, p_now + p_ttl, p_now + p_ttl);
      continue;
    end if;
    if r.info_ms > 0 and r.info_ms <= p_now then perform {drop_info}(array[r.id]); end if;
    update {sessions} s set info_ms = p_now + p_ttl, due_ms = least(s.due_ms, p_now + p_ttl), updated_at = now()
    where s.id = r.id;
  end loop;
end

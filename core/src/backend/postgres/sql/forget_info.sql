{forget_info}(p_node uuid, p_ids text[]) returns table (nth integer, had boolean) language plpgsql volatile
--body
-- Removes the info of sessions; of those named twice, the first had it.
declare
  v_now bigint;
  v_had text[];
begin
  perform from {sessions} s where s.id = any(p_ids) order by s.id collate "C" for update;
  v_now := {now}();
  v_had := {drop_info}(p_ids);
  -- Expired ones were gone before.
  return query
  select i.nth::integer, row_number() over (partition by i.id order by i.nth) = 1
    and case when coalesce(s.info_ms, 0) = 0 then i.id = any(v_had) else s.info_ms > v_now end
  from unnest(p_ids) with ordinality i(id, nth) left join {sessions} s on s.id = i.id;
  delete from {events} e using {sessions} s
  where s.id = any(p_ids) and s.holder is null and s.remembered_ms <= v_now and e.epoch = s.epoch;
  delete from {keys} k using {sessions} s
  where s.id = any(p_ids) and s.holder is null and s.remembered_ms <= v_now and k.epoch = s.epoch;
  delete from {sessions} s where s.id = any(p_ids) and s.holder is null and s.remembered_ms <= v_now;
  update {sessions} s set info_ms = 0 where s.id = any(p_ids) and s.info_ms > 0;
  perform {tell_changed}(p_node, p_ids, v_now);
end

{registry_report}(p_node uuid, p_ids text[], p_counts integer[]) returns table (nth integer, open boolean)
language plpgsql volatile
--body
declare
  v_now bigint := {now}();
begin
  perform from {registry} g where g.id = any(p_ids) order by g.id collate "C" for update;
  delete from {requests} q using unnest(p_ids, p_counts) i(id, count)
  where q.id = i.id and q.node = p_node
    and (i.count = 0 or not exists (select from {registry} g where g.id = i.id and g.state = 'o'));
  insert into {requests} as q (id, node, count)
  select i.id, p_node, i.count from unnest(p_ids, p_counts) i(id, count)
  join {registry} g on g.id = i.id and g.state = 'o' where i.count > 0
  on conflict (id, node) do update set count = excluded.count;
  update {registry} g set access_ms = v_now where g.id = any(p_ids) and g.state = 'o';
  return query
  select i.nth::integer, exists (select from {registry} g where g.id = i.id and g.state = 'o')
  from unnest(p_ids) with ordinality i(id, nth);
end

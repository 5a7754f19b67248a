{registry_close}(p_ids text[], p_reasons text[], p_grace bigint) returns table (nth integer, started text)
language plpgsql volatile
--body
-- Begins to close sessions; of those named twice, the first does.
declare
  v_open integer[];
begin
  perform from {sessions} s where s.id = any(p_ids) order by s.id collate "C" for update;
  perform from {registry} g where g.id = any(p_ids) order by g.id collate "C" for update;
  select coalesce(array_agg(x.nth order by x.nth), '{}') into v_open from (
    select min(i.nth)::integer as nth from unnest(p_ids) with ordinality i(id, nth)
    join {registry} g on g.id = i.id and g.state = 'o' group by i.id) x;
  perform {registry_begin_close}(
    array(select p_ids[x] from unnest(v_open) x), array(select p_reasons[x] from unnest(v_open) x), p_grace, {now}());
  return query
  select i.nth::integer, case when i.nth = any(v_open) then 'begun' when g.state = 'c' then 'underway' else 'gone' end
  from unnest(p_ids) with ordinality i(id, nth) left join {registry} g on g.id = i.id;
end

{holder}(p_ids text[]) returns setof text language plpgsql volatile
--body
-- The live holder of each session in turn, or null.
declare
  v_now bigint := {now}();
begin
  return query select n.id::text from unnest(p_ids) with ordinality i(id, nth)
  left join {sessions} s on s.id = i.id
  left join {nodes} n on n.id = s.holder and n.lease_ms > v_now
  order by i.nth;
end

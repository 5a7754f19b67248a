{subscribers}(p_uri text) returns setof text language plpgsql volatile
--body
declare
  v_now bigint := {now}();
begin
  return query select distinct x.id from {subscriptions} x left join {sessions} s on s.id = x.id
  where hashtextextended(x.value, 0) = hashtextextended(p_uri, 0) and x.value = p_uri
    and (s.id is null or s.info_ms = 0 or s.info_ms > v_now);
end

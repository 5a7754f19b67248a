{uris}(p_id text) returns setof text language plpgsql volatile
--body
declare
  v_now bigint := {now}();
begin
  return query select distinct x.value from {subscriptions} x left join {sessions} s on s.id = x.id
  where x.id = p_id and (s.id is null or s.info_ms = 0 or s.info_ms > v_now);
end

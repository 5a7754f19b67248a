{known}(p_id text) returns boolean language plpgsql volatile
--body
declare
  v_now bigint := {now}();
begin
  return exists (
    select from {sessions} s
    where s.id = p_id and (s.holder is not null or s.remembered_ms > v_now or s.info_ms > v_now));
end

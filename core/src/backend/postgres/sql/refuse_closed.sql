{refuse_closed}(p_ids text[], p_now bigint) returns void language plpgsql volatile
--body
-- A session that is closing or closed takes nothing more.
begin
  if exists (
    select from {registry} g
    where g.id = any(p_ids) and (g.state = 'c' or (g.state = 'd' and g.due_ms > p_now))
  ) then
    raise exception using errcode = 'TM404', message = 'the session was closed';
  end if;
end

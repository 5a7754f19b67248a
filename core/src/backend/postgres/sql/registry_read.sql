{registry_read}(p_ids text[], p_touch text, p_owner text, p_every bigint) returns table (
  nth integer, owner text, node text, created bigint, access bigint, state text, reason text, metadata text,
  requests bigint, at bigint
) language plpgsql volatile
--body
-- The records of sessions. p_touch: n no access, y access, o access if the owner is this one.
declare
  v_now bigint := {now}();
begin
  if p_touch <> 'n' then
    update {registry} g set access_ms = v_now
    where g.id = any(p_ids) and g.state = 'o' and v_now - g.access_ms >= p_every
      and (p_touch = 'y' or g.owner is not distinct from p_owner);
  end if;
  return query
  select i.nth::integer, g.owner, g.node::text, g.created_ms, g.access_ms, g.state, g.reason, g.metadata,
    coalesce((select sum(q.count)::bigint from {requests} q join {nodes} n on n.id = q.node
      where q.id = g.id and n.lease_ms > v_now), 0), v_now
  from unnest(p_ids) with ordinality i(id, nth)
  join {registry} g on g.id = i.id
  where g.state <> 'd' or g.due_ms > v_now;
end

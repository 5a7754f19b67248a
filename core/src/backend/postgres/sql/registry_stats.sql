{registry_stats}(p_stale bigint) returns table (node text, total bigint, stale bigint, closing bigint)
language plpgsql volatile
--body
declare
  v_now bigint := {now}();
begin
  return query
  select g.node::text, count(*),
    count(*) filter (where g.state = 'o' and g.access_ms + p_stale <= v_now and not exists (
      select from {requests} q join {nodes} n on n.id = q.node
      where q.id = g.id and q.count > 0 and n.lease_ms > v_now)),
    count(*) filter (where g.state = 'c')
  from {registry} g where g.state <> 'd' group by g.node;
end

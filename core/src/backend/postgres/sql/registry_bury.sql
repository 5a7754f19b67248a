{registry_bury}(p_ids text[], p_tombstone bigint) returns void language plpgsql volatile
--body
begin
  perform from {registry} g where g.id = any(p_ids) order by g.id collate "C" for update;
  delete from {requests} q using {registry} g where q.id = any(p_ids) and g.id = q.id and g.state = 'c';
  update {registry} g set state = 'd', owner = null, metadata = null, due_ms = {now}() + p_tombstone
  where g.id = any(p_ids) and g.state = 'c';
end

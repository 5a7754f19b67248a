{held}(p_node uuid, p_id text) returns table (
  owner bigint, own_epoch bigint, own bigint, shared_epoch bigint, shared bigint
) language plpgsql volatile
--body
-- The owner epoch, and where its stream started, if this node is the holder.
begin
  return query select s.owner_epoch, s.resume_epoch, s.resume, s.resume_shared_epoch, s.resume_shared
  from {sessions} s where s.id = p_id and s.holder = p_node;
end

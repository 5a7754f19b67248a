{release}(
  p_ids text[], p_owners bigint[], p_own_epoch bigint[], p_own bigint[], p_shared_epoch bigint[], p_shared bigint[],
  p_age bigint, p_relaxed boolean
) returns void language plpgsql volatile
--body
declare
  v_now bigint := {now}();
begin
  if p_relaxed then perform set_config('synchronous_commit', 'off', true); end if;
  perform from {sessions} s where s.id = any(p_ids) order by s.id collate "C" for update;
  update {sessions} s set
    resume_epoch = r.own_epoch, resume = r.own, resume_shared_epoch = r.shared_epoch, resume_shared = r.shared,
    remembered_ms = case when s.holder is null then s.remembered_ms else greatest(s.remembered_ms, v_now + p_age) end,
    due_ms = case when s.holder is null then s.due_ms else least(s.due_ms, v_now + p_age) end,
    holder = null, lost = false, updated_at = now()
  from unnest(p_ids, p_owners, p_own_epoch, p_own, p_shared_epoch, p_shared)
    r(id, owner, own_epoch, own, shared_epoch, shared)
  where s.id = r.id and s.owner_epoch = r.owner;
end

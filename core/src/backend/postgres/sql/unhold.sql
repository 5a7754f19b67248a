{unhold}(p_id text, p_life bigint, p_now bigint, p_age bigint, p_lost boolean) returns void language plpgsql volatile
--body
-- Takes the holder away; the session is remembered from now on, and its node may reclaim it if it
-- was lost. Its row is locked.
declare
  f record;
begin
  f := {fresh}(p_id, p_life, p_now);
  update {sessions} s set resume_epoch = f.own_epoch, resume = f.own, resume_shared_epoch = f.shared_epoch,
    resume_shared = f.shared, holder = null, lost = p_lost, remembered_ms = greatest(s.remembered_ms, p_now + p_age), due_ms = least(s.due_ms, p_now + p_age),
    updated_at = now()
  where s.id = p_id;
end

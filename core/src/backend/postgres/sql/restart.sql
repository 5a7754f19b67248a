{restart}(p_id text, p_epoch bigint, p_info boolean) returns void language plpgsql volatile
--body
-- Removes a session's log, and its info and subscriptions if asked for. Its row is locked.
begin
  delete from {events} e where e.epoch = p_epoch;
  delete from {keys} k where k.epoch = p_epoch;
  if p_info then perform {drop_info}(array[p_id]); end if;
end

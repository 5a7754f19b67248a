{trim_keys}(p_id text, p_more integer) returns void language plpgsql volatile
--body
-- Counts a session's idempotency keys, and keeps the newest of too many.
declare
  v_epoch bigint;
  v_keyed integer;
begin
  update {sessions} s set keyed = s.keyed + p_more where s.id = p_id returning s.epoch, s.keyed into v_epoch, v_keyed;
  if v_keyed > 2048 then
    delete from {keys} k where k.epoch = v_epoch and k.key in (
      select o.key from {keys} o where o.epoch = v_epoch order by o.at_ms desc offset 1024);
    update {sessions} s set keyed = 1024 where s.id = p_id;
  end if;
end

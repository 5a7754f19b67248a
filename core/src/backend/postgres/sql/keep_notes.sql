{keep_notes}() returns void language plpgsql volatile
--body
-- Notifications do not wait for the disk, so a crash of the server may take the last ones along, and the
-- unlogged {notes} with them: then their log goes on under another epoch, and no offset is given twice.
declare
  v_epoch bigint := hashtextextended(gen_random_uuid()::text, 0);
  t {topics}%rowtype;
begin
  if exists (select from {notes}) then return; end if;
  select * into strict t from {topics} x where x.name = 'n' for update;
  insert into {notes} (was, head) values (t.epoch, t.head) on conflict do nothing;
  if not found then return; end if;
  update {events} e set epoch = v_epoch where e.epoch = t.epoch;
  update {topics} x set epoch = v_epoch where x.name = 'n';
  -- Positions of this epoch are told from here on: it must not be lost with the next crash.
  perform set_config('synchronous_commit', 'on', true);
end

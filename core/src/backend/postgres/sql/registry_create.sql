{registry_create}(p_id text, p_owner text, p_node uuid, p_metadata text, p_stale bigint)
returns boolean language plpgsql volatile
--body
declare
  v_now bigint;
  s {sessions}%rowtype;
begin
  -- The session's row is what others lock, too.
  loop
    insert into {sessions} (id, resume_shared) select p_id, t.head from {topics} t where t.name = 'b'
    on conflict do nothing;
    select * into s from {sessions} x where x.id = p_id for update;
    exit when s.id is not null;
  end loop;
  v_now := {now}();
  delete from {registry} g where g.id = p_id and g.state = 'd' and g.due_ms <= v_now;
  insert into {registry} (id, owner, node, created_ms, access_ms, state, metadata, due_ms)
  values (p_id, p_owner, p_node, v_now, v_now, 'o', p_metadata, v_now + p_stale)
  on conflict do nothing;
  if not found then return false; end if;
  if s.holder is null and s.remembered_ms <= v_now and s.info_ms <= v_now then
    perform {restart}(s.id, s.epoch, s.info_ms > 0);
    delete from {sessions} x where x.id = p_id;
    insert into {sessions} (id, resume_shared, remembered_ms)
    select p_id, t.head, {registered} from {topics} t where t.name = 'b';
  else
    update {sessions} x set remembered_ms = {registered} where x.id = p_id;
  end if;
  return true;
end

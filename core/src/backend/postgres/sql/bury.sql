{bury}(p_node uuid, p_age bigint, p_most bigint) returns boolean language plpgsql volatile
--body
-- Unholds some of what a node holds, and forgets the node when nothing is left; true when more is.
declare
  v_now bigint := {now}();
  v_life bigint := {life}();
  v_seen integer := 0;
  r record;
begin
  for r in select s.id from {sessions} s where s.holder = p_node order by s.id limit p_most for update skip locked loop
    perform {unhold}(r.id, v_life, v_now, p_age, true);
    v_seen := v_seen + 1;
  end loop;
  if exists (select from {sessions} s where s.holder = p_node) then return v_seen > 0; end if;
  delete from {mail} m where m.node = p_node;
  delete from {nodes} n where n.id = p_node;
  return false;
end

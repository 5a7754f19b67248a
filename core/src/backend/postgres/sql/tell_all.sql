{tell_all}(p_message text, p_now bigint) returns void language plpgsql volatile
--body
-- Sends a message to every node.
declare
  r record;
begin
  if {notify}({everybody}, p_message) then
    insert into {mail} (node, message)
    select n.id, p_message from {nodes} n where n.polls and n.lease_ms > p_now;
    return;
  end if;
  for r in select n.id, n.polls from {nodes} n where n.lease_ms > p_now loop
    perform {tell}(r.id, r.polls, p_message);
  end loop;
end

{tell}(p_node uuid, p_polls boolean, p_message text) returns void language plpgsql volatile
--body
-- Sends a message to one node. What is too long to notify, or goes to a node that polls, waits in
-- the mail.
declare
  v_seq bigint;
begin
  if not p_polls and {notify}('tmcp:' || p_node, p_message) then return; end if;
  insert into {mail} (node, message) values (p_node, p_message) returning seq into v_seq;
  if not p_polls then perform pg_notify('tmcp:' || p_node, 'm' || v_seq || ' '); end if;
end

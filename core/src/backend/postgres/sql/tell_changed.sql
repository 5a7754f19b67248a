{tell_changed}(p_node uuid, p_ids text[], p_now bigint) returns void language plpgsql volatile
--body
-- Tells every node whose info changed, in as few messages as hold the ids.
declare
  v_message text := '';
  v_id text;
begin
  foreach v_id in array p_ids loop
    if octet_length(v_message) > 7600 then
      perform {tell_all}(v_message, p_now);
      v_message := '';
    end if;
    v_message := v_message || 'i' || p_node || ' ' || v_id || ' ';
  end loop;
  if v_message <> '' then perform {tell_all}(v_message, p_now); end if;
end

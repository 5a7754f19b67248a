{notify}(p_channel text, p_message text) returns boolean language plpgsql volatile
--body
-- Notifies a channel, in pieces if need be; false for what is too long even for that.
declare
  v_id text;
  v_size integer;
  v_pieces integer;
begin
  if octet_length(p_message) < 7990 then
    perform pg_notify(p_channel, p_message);
    return true;
  end if;
  if octet_length(p_message) > 64000 then return false; end if;
  -- The server tells what is the same within a transaction only once: each message has a name.
  v_id := gen_random_uuid();
  v_size := case when octet_length(p_message) = length(p_message) then 7900 else 1975 end;
  v_pieces := (length(p_message) + v_size - 1) / v_size;
  for v_k in 1 .. v_pieces loop
    perform pg_notify(p_channel, 'f' || v_id || ' ' || v_k || ' ' || (v_k = v_pieces)::integer || ':'
      || substr(p_message, (v_k - 1) * v_size + 1, v_size));
  end loop;
  return true;
end

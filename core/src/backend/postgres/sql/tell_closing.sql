{tell_closing}(p_ids text[], p_reasons text[], p_now bigint) returns void language plpgsql volatile
--body
-- Tells every node which sessions close, in as few messages as hold them.
declare
  v_message text := '';
  v_item text;
begin
  for v_k in 1 .. cardinality(p_ids) loop
    v_item := 'k' || p_ids[v_k] || ' ' || p_reasons[v_k] || ' ';
    if v_message <> '' and octet_length(v_message) + octet_length(v_item) > 7980 then
      perform {tell_all}(v_message, p_now);
      v_message := '';
    end if;
    v_message := v_message || v_item;
  end loop;
  if v_message <> '' then perform {tell_all}(v_message, p_now); end if;
end

{info}(p_ids text[], p_ttl bigint) returns table (
  nth integer, found_any boolean, client_info text, client_capabilities text, log_level text, protocol_version text,
  initialize_params text
) language plpgsql volatile
--body
-- Reads the info of sessions, and lets it live on. A session whose documents another program wrote is
-- taken over.
declare
  v_now bigint := {now}();
  v_due text[];
begin
  select array_agg(distinct s.id) into v_due from {sessions} s
  where s.id = any(p_ids) and s.info_ms > v_now and s.info_ms - v_now < p_ttl * 3 / 4;
  if v_due is not null then perform {touch}(v_due, p_ttl, v_now); end if;
  return query
    select i.nth::integer, coalesce(s.info_ms, 0) > v_now or (coalesce(s.info_ms, 0) = 0
        and (a.id is not null or b.id is not null or c.id is not null or d.id is not null or e.id is not null)),
      a.value, b.value, c.value, d.value, e.value
    from unnest(p_ids) with ordinality i(id, nth)
    left join {sessions} s on s.id = i.id
    left join {client_info} a on a.id = i.id
    left join {client_capabilities} b on b.id = i.id
    left join {log_level} c on c.id = i.id
    left join {protocol_version} d on d.id = i.id
    left join {initialize_params} e on e.id = i.id;
end

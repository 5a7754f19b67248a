{put_info}(
  p_node uuid, p_ttl bigint, p_ids text[], p_client_info text[], p_client_capabilities text[],
  p_log_level text[], p_protocol_version text[], p_initialize_params text[]
) returns void language plpgsql volatile
--body
-- Changes the info of sessions, each named once; null leaves a document, or all of a kind, as it is.
declare
  v_now bigint := {now}();
  v_message text := '';
  v_id text;
begin
  perform {touch}(p_ids, p_ttl, v_now);
  if p_client_info is not null then
    insert into {client_info} as d (id, value)
    select i.id, i.value from unnest(p_ids, p_client_info) i(id, value) where i.value is not null
    on conflict (id) do update set value = excluded.value;
  end if;
  if p_client_capabilities is not null then
    insert into {client_capabilities} as d (id, value)
    select i.id, i.value from unnest(p_ids, p_client_capabilities) i(id, value) where i.value is not null
    on conflict (id) do update set value = excluded.value;
  end if;
  if p_log_level is not null then
    insert into {log_level} as d (id, value)
    select i.id, i.value from unnest(p_ids, p_log_level) i(id, value) where i.value is not null
    on conflict (id) do update set value = excluded.value;
  end if;
  if p_protocol_version is not null then
    insert into {protocol_version} as d (id, value)
    select i.id, i.value from unnest(p_ids, p_protocol_version) i(id, value) where i.value is not null
    on conflict (id) do update set value = excluded.value;
  end if;
  if p_initialize_params is not null then
    insert into {initialize_params} as d (id, value)
    select i.id, i.value from unnest(p_ids, p_initialize_params) i(id, value) where i.value is not null
    on conflict (id) do update set value = excluded.value;
  end if;
  perform {tell_changed}(p_node, p_ids, v_now);
end

{join}(p_node uuid, p_ttl bigint, p_polls boolean, p_relaxed boolean)
returns table (shared_epoch bigint, shared bigint, notes_epoch bigint, notes bigint) language plpgsql volatile
--body
declare
  v_life bigint := {life}();
  v_canary bigint;
begin
  if p_relaxed and exists (select from {meta} m where m.one and not m.relaxed) then
    perform from {meta} m where m.one for update;
    v_canary := hashtextextended(gen_random_uuid()::text, 0);
    delete from {canary};
    insert into {canary} values (v_canary);
    update {meta} m set relaxed = true, canary = v_canary where m.one;
  end if;
  perform {keep_notes}();
  insert into {nodes} as n (id, ttl_ms, lease_ms, polls) values (p_node, p_ttl, {now}() + p_ttl, p_polls)
  on conflict (id) do update set ttl_ms = excluded.ttl_ms, lease_ms = excluded.lease_ms, polls = excluded.polls;
  return query select b.epoch # v_life, b.head, n.epoch # v_life, n.head from {topics} b, {topics} n
  where b.name = 'b' and n.name = 'n';
end

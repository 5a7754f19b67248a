{registry_sweep}(p_most bigint, p_stale bigint, p_sweep bigint, p_grace bigint)
returns table (stale text[], unfinished text[], more boolean) language plpgsql volatile
--body
-- Takes some of what is due; what another node sweeps is passed over.
declare
  v_now bigint := {now}();
  v_seen integer := 0;
  v_busy boolean;
  v_reasons text[] := '{}';
  r record;
begin
  stale := '{}';
  unfinished := '{}';
  for r in
    select g.* from {registry} g where g.due_ms <= v_now order by g.due_ms limit p_most for update skip locked
  loop
    v_seen := v_seen + 1;
    if r.state = 'd' then
      delete from {registry} g where g.id = r.id;
    elsif r.state = 'c' then
      update {registry} g set due_ms = v_now + p_grace where g.id = r.id;
      unfinished := unfinished || r.id;
      v_reasons := v_reasons || r.reason;
    else
      v_busy := exists (select from {requests} q join {nodes} n on n.id = q.node
        where q.id = r.id and q.count > 0 and n.lease_ms > v_now);
      if not v_busy and r.access_ms + p_stale <= v_now then
        stale := stale || r.id;
      else
        update {registry} g set due_ms = case when v_busy then greatest(r.access_ms + p_stale, v_now + p_sweep)
          else r.access_ms + p_stale end
        where g.id = r.id;
      end if;
    end if;
  end loop;
  perform {registry_begin_close}(stale, array_fill('stale'::text, array[cardinality(stale)]), p_grace, v_now);
  -- Whoever began may not have told.
  perform {tell_closing}(unfinished, v_reasons, v_now);
  delete from {logs} l where l.ctid in (select x.ctid from {logs} x where x.until_ms <= v_now limit p_most);
  more := v_seen >= p_most;
  return next;
end

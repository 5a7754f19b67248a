{post}(
  p_to text[], p_at integer[], p_payloads text[], p_keys text[], p_life bigint,
  p_events bigint, p_bytes bigint, p_age bigint
) returns text[] language plpgsql volatile
--body
-- Accepts deliveries to sessions. Returns null if all were accepted, else their letters. A session's
-- row stays locked to the end, so its offsets become visible in order, and so do its signals.
declare
  v_now bigint := {now}();
  v_shared bigint;
  v_letters text[];
  v_accepted integer[];
  v_count integer := cardinality(p_to);
  v_at integer;
  v_dups integer[] := '{}';
  r record;
begin
  select t.head into v_shared from {topics} t where t.name = 'b';
  if p_keys is not null then
    select coalesce(array_agg(d.ord), '{}') into v_dups from (
      select t.ord, row_number() over (partition by t.id, p_keys[t.at] order by t.ord) as nth,
        (select k.at_ms from {sessions} s join {keys} k on k.epoch = s.epoch and k.key = p_keys[t.at]
          where s.id = t.id) as at_ms
      from unnest(p_to, p_at) with ordinality t(id, at, ord) where p_keys[t.at] is not null
    ) d where d.nth > 1 or d.at_ms + p_age > v_now;
  end if;
  for r in
    with c as (
      select t.id, array_agg(t.ord order by t.ord) as ords, sum(octet_length(p_payloads[t.at])) as size,
        count(*) as events
      from unnest(p_to, p_at) with ordinality t(id, at, ord)
      where v_dups = '{}' or t.ord <> all(v_dups)
      group by t.id order by t.id collate "C"
    ), u as (
      update {sessions} s set
        head = s.head + c.events,
        bytes = s.bytes + c.size,
        base = case when s.head + c.events - s.base > p_events + p_events / 4 + 16
          or s.bytes + c.size - s.base_bytes > p_bytes + p_bytes / 4 + 65536
          then greatest(s.base, s.head + c.events - p_events) else s.base end,
        base_bytes = case when s.head + c.events - s.base > p_events + p_events / 4 + 16
          or s.bytes + c.size - s.base_bytes > p_bytes + p_bytes / 4 + 65536
          then greatest(s.base_bytes, s.bytes + c.size - p_bytes) else s.base_bytes end,
        due_ms = case when p_events > 0 or p_keys is not null then least(s.due_ms, v_now + p_age)
          else s.due_ms end,
        updated_at = now()
      from c
      where s.id = c.id and (s.holder is not null or s.remembered_ms > v_now or s.info_ms > v_now)
      returning s.id, s.epoch, s.head, s.holder, c.ords, c.events,
        s.base = s.head - p_events as trim, s.base_bytes = s.bytes - p_bytes as cut,
        (select n.polls from {nodes} n where n.id = s.holder and n.lease_ms > v_now) as polls
    ), e as (
      select u.id, u.epoch, u.head - u.events + o.k as n, u.holder, u.polls, o.ord, p_payloads[p_at[o.ord]] as payload
      from u, unnest(u.ords) with ordinality o(ord, k)
    ), i as (
      insert into {events} (epoch, n, at_ms, shared, payload)
      select e.epoch, e.n, v_now, v_shared, e.payload from e where p_events > 0
    ), m as (
      select e.holder, e.polls, e.ord, 'e' || e.id || ' ' || (e.epoch # p_life) || ' ' || e.n || ' '
        || octet_length(e.payload) || ':' || e.payload as item
      from e where e.polls is not null
    ), g as (
      -- One message holds what begins in the same 5,980 bytes, and the last of it is not long.
      select m.*, (sum(octet_length(m.item)) over w - octet_length(m.item)) / 5980 as part,
        count(*) filter (where octet_length(m.item) > 2000) over w as long
      from m window w as (partition by m.holder order by m.ord rows unbounded preceding)
    )
    (select g.holder, g.polls, string_agg(g.item, '' order by g.ord) as message, null::bigint as epoch,
      null::bigint as head, false as cut, null::integer[] as accepted
    from g group by g.holder, g.polls, g.part, g.long order by min(g.ord))
    union all
    select null, null, null, u.epoch, u.head, u.cut, null from u where (u.trim or u.cut) and p_events > 0
    union all
    select null, null, null, null, null, false, array_agg(e.ord::integer) from e
    where p_events > 0 or e.polls is not null
  loop
    if r.message is not null then
      perform {tell}(r.holder, r.polls, r.message);
    elsif r.epoch is not null then
      perform {trim}(r.epoch, r.head, p_events, case when r.cut then p_bytes end, null);
    else
      v_accepted := coalesce(r.accepted, '{}');
    end if;
  end loop;
  if p_keys is null and cardinality(v_accepted) = v_count then return null; end if;
  v_letters := array_fill('x'::text, array[v_count]);
  foreach v_at in array v_accepted loop v_letters[v_at] := 'a'; end loop;
  foreach v_at in array v_dups loop v_letters[v_at] := 'd'; end loop;
  if p_keys is not null then
    for r in
      with k as (
        insert into {keys} (epoch, key, at_ms)
        select s.epoch, p_keys[t.at], v_now
        from unnest(p_to, p_at) with ordinality t(id, at, ord) join {sessions} s on s.id = t.id
        where v_letters[t.ord] = 'a' and p_keys[t.at] is not null
        on conflict (epoch, key) do update set at_ms = excluded.at_ms
      )
      select t.id, count(*)::integer as keys from unnest(p_to, p_at) with ordinality t(id, at, ord)
      where v_letters[t.ord] = 'a' and p_keys[t.at] is not null group by t.id
    loop
      perform {trim_keys}(r.id, r.keys);
    end loop;
  end if;
  return v_letters;
end

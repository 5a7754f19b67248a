{post_topic}(
  p_name text, p_at integer[], p_payloads text[], p_keys text[], p_life bigint,
  p_events bigint, p_bytes bigint, p_age bigint
) returns text[] language plpgsql volatile
--body
-- Accepts events for every node. The topic's row is locked, so offsets become visible in order.
declare
  v_now bigint := {now}();
  v_count integer := cardinality(p_at);
  v_dups integer[] := '{}';
  v_letters text[];
  v_payloads text[];
  v_events integer;
  v_size bigint;
  v_message text := '';
  v_item text;
  v_base bigint;
  v_base_bytes bigint;
  v_k integer;
  t {topics}%rowtype;
begin
  if p_name = 'n' then perform {keep_notes}(); end if;
  select * into strict t from {topics} x where x.name = p_name for update;
  if p_keys is not null then
    select coalesce(array_agg(d.ord), '{}') into v_dups from (
      select a.ord, row_number() over (partition by p_keys[a.at] order by a.ord) as nth,
        (select k.at_ms from {keys} k where k.epoch = t.epoch and k.key = p_keys[a.at]) as at_ms
      from unnest(p_at) with ordinality a(at, ord) where p_keys[a.at] is not null
    ) d where d.nth > 1 or d.at_ms + p_age > v_now;
  end if;
  select coalesce(array_agg(p_payloads[a.at] order by a.ord), '{}'), count(*),
    coalesce(sum(octet_length(p_payloads[a.at])), 0)
  into v_payloads, v_events, v_size
  from unnest(p_at) with ordinality a(at, ord) where v_dups = '{}' or a.ord <> all(v_dups);
  if v_events > 0 then
    if p_events > 0 then
      insert into {events} (epoch, n, at_ms, shared, payload)
      select t.epoch, t.head + a.k, v_now, 0, a.payload from unnest(v_payloads) with ordinality a(payload, k);
    end if;
    v_base := t.base;
    v_base_bytes := t.base_bytes;
    if t.head + v_events - t.base > p_events + p_events / 4 + 16
      or t.bytes + v_size - t.base_bytes > p_bytes + p_bytes / 4 + 65536 then
      v_base := greatest(t.base, t.head + v_events - p_events);
      v_base_bytes := greatest(t.base_bytes, t.bytes + v_size - p_bytes);
      perform {trim}(t.epoch, t.head + v_events, p_events,
        case when v_base_bytes > t.base_bytes then p_bytes end, null);
    end if;
    update {topics} x set head = t.head + v_events, bytes = t.bytes + v_size, base = v_base,
      base_bytes = v_base_bytes, due_ms = case when x.due_ms = 0 then v_now + p_age else x.due_ms end
    where x.name = p_name;
    for v_k in 1 .. v_events loop
      v_item := 't' || p_name || ' ' || (t.epoch # p_life) || ' ' || (t.head + v_k) || ' '
        || octet_length(v_payloads[v_k]) || ':' || v_payloads[v_k];
      if v_message <> '' and octet_length(v_message) + octet_length(v_item) > 7980 then
        perform {tell_all}(v_message, v_now);
        v_message := '';
      end if;
      v_message := v_message || v_item;
    end loop;
    perform {tell_all}(v_message, v_now);
  end if;
  if p_keys is null then return null; end if;
  insert into {keys} (epoch, key, at_ms)
  select t.epoch, p_keys[a.at], v_now from unnest(p_at) with ordinality a(at, ord)
  where p_keys[a.at] is not null and (v_dups = '{}' or a.ord <> all(v_dups))
  on conflict (epoch, key) do update set at_ms = excluded.at_ms;
  update {topics} x set keyed = x.keyed + v_events where x.name = p_name and v_events > 0;
  if t.keyed + v_events > 2048 then
    delete from {keys} k where k.epoch = t.epoch and k.key in (
      select o.key from {keys} o where o.epoch = t.epoch order by o.at_ms desc offset 1024);
    update {topics} x set keyed = 1024 where x.name = p_name;
  end if;
  v_letters := array_fill('a'::text, array[v_count]);
  for v_k in 1 .. cardinality(v_dups) loop v_letters[v_dups[v_k]] := 'd'; end loop;
  return v_letters;
end

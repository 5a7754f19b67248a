{accept}(
  p_to text[], p_at integer[], p_payloads text[], p_keys text[], p_relaxed boolean,
  p_events bigint, p_bytes bigint, p_age bigint,
  p_shared_events bigint, p_shared_bytes bigint, p_shared_age bigint
) returns text language plpgsql volatile
--body
-- Accepts a batch. Delivery i goes to p_to[i] (' b' and ' n' are the topics) and carries
-- p_payloads[p_at[i]] under the idempotency key p_keys[p_at[i]]. Returns 'a' if all were accepted,
-- else a letter a delivery: a accepted, d duplicate, x dropped.
declare
  v_count integer := cardinality(p_to);
  v_letters text[];
  v_low integer := 1;
  v_high integer;
  v_life bigint;
  v_topic boolean := p_to && array[' b', ' n'];
begin
  -- A notification is for whoever listens now, so it waits for no disk.
  if p_relaxed or p_to <@ array[' n'] then perform set_config('synchronous_commit', 'off', true); end if;
  v_life := {life}();
  if v_topic and p_keys is null and p_to <@ p_to[1:1] then
    perform {post_topic}(ltrim(p_to[1]), p_at, p_payloads, null, v_life, p_shared_events, p_shared_bytes, p_shared_age);
    return 'a';
  end if;
  if not v_topic and p_keys is null and p_events > 0 then
    v_letters := {post}(p_to, p_at, p_payloads, null, v_life, p_events, p_bytes, p_age);
    if v_letters is null then return 'a'; end if;
    return array_to_string(v_letters, '');
  end if;
  -- Everybody locks in one order, which is that of bytes: sessions by id, then topics by name. What waits for nobody else
  -- can't wait for ever.
  if v_topic or p_keys is not null then
    perform from {sessions} s where s.id = any(p_to) order by s.id collate "C" for update;
  end if;
  if v_topic then
    perform from {topics} t where t.name = any(select ltrim(x) from unnest(p_to) x where left(x, 1) = ' ') order by t.name for update;
  end if;
  v_letters := array_fill('a'::text, array[v_count]);
  while v_low <= v_count loop
    v_high := v_low;
    if left(p_to[v_low], 1) = ' ' then
      while v_high < v_count and p_to[v_high + 1] = p_to[v_low] loop v_high := v_high + 1; end loop;
      v_letters[v_low:v_high] := coalesce(
        {post_topic}(ltrim(p_to[v_low]), p_at[v_low:v_high], p_payloads, p_keys, v_life, p_shared_events,
          p_shared_bytes, p_shared_age),
        v_letters[v_low:v_high]);
    else
      while v_high < v_count and left(p_to[v_high + 1], 1) <> ' ' loop v_high := v_high + 1; end loop;
      v_letters[v_low:v_high] := coalesce(
        {post}(p_to[v_low:v_high], p_at[v_low:v_high], p_payloads, p_keys, v_life, p_events, p_bytes, p_age),
        v_letters[v_low:v_high]);
    end if;
    v_low := v_high + 1;
  end loop;
  return array_to_string(v_letters, '');
end

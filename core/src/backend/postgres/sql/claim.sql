{claim}(
  p_node uuid, p_ids text[], p_replace boolean[], p_fresh boolean[],
  p_own_epoch bigint[], p_own bigint[], p_shared_epoch bigint[], p_shared bigint[],
  p_events bigint, p_bytes bigint, p_age bigint,
  p_shared_events bigint, p_shared_bytes bigint, p_shared_age bigint, p_relaxed boolean
) returns table (
  nth integer, state text, owner bigint, own_epoch bigint, own bigint, shared_epoch bigint, shared bigint, gap boolean,
  own_shareds bigint[], own_payloads text[], shared_payloads text[]
) language plpgsql volatile
--body
-- Makes a node the holder of sessions, and reads what each has to deliver first.
declare
  v_now bigint;
  v_life bigint;
  v_holder {nodes}%rowtype;
  s {sessions}%rowtype;
  t {topics}%rowtype;
  f record;
  l record;
  r record;
begin
  if p_relaxed then perform set_config('synchronous_commit', 'off', true); end if;
  v_life := {life}();
  for r in select i.* from unnest(p_ids, p_replace, p_fresh, p_own_epoch, p_own, p_shared_epoch, p_shared)
    with ordinality i(id, replace, fresh, own_epoch, own, shared_epoch, shared, nth) order by i.id collate "C", i.nth
  loop
    nth := r.nth;
    state := 'ok';
    if exists (select from {registry} g where g.id = r.id and (g.state = 'c' or (g.state = 'd' and g.due_ms > {now}()))) then
      state := 'gone';
      return next;
      continue;
    end if;
    insert into {sessions} (id, resume_shared, holder, owner_epoch)
    select r.id, x.head, p_node, (extract(epoch from clock_timestamp()) * 1000000)::bigint from {topics} x
    where x.name = 'b' and exists (select from {nodes} n where n.id = p_node and n.lease_ms > {now}())
    on conflict do nothing
    returning * into s;
    if found then
      select * into strict t from {topics} x where x.name = 'b';
      owner := s.owner_epoch;
      if r.fresh then
        select s.epoch # v_life as own_epoch, 0::bigint as own, t.epoch # v_life as shared_epoch, s.resume_shared as shared into f;
      else
        select r.own_epoch as own_epoch, r.own as own, r.shared_epoch as shared_epoch, r.shared as shared into f;
      end if;
    else
      select * into s from {sessions} x where x.id = r.id for update;
      v_now := {now}();
      if not exists (select from {nodes} n where n.id = p_node and n.lease_ms > v_now) then
        state := 'lease';
        return next;
        continue;
      end if;
      if s.id is null then
        -- It was removed in between.
        state := 'again';
        return next;
        continue;
      end if;
      if s.holder is null and s.remembered_ms <= v_now and s.info_ms <= v_now then
        perform {restart}(s.id, s.epoch, s.info_ms > 0);
        update {sessions} x set epoch = hashtextextended(gen_random_uuid()::text, 0), head = 0, base = 0, bytes = 0,
          base_bytes = 0, keyed = 0, lost = false, resume_epoch = null, resume = 0, resume_shared_epoch = null,
          resume_shared = (select y.head from {topics} y where y.name = 'b'), info_ms = 0, due_ms = null
        where x.id = s.id returning * into s;
      end if;
      v_holder := null;
      if s.holder is not null then
        select * into v_holder from {nodes} n where n.id = s.holder and n.lease_ms > v_now;
      end if;
      if v_holder.id is not null and not r.replace then
        state := 'conflict';
        return next;
        continue;
      end if;
      if r.fresh then
        f := {fresh}(s.id, v_life, v_now);
      else
        select r.own_epoch as own_epoch, r.own as own, r.shared_epoch as shared_epoch, r.shared as shared into f;
      end if;
      if v_holder.id is not null then
        perform {tell}(v_holder.id, v_holder.polls, 'x' || s.id || ' ' || s.owner_epoch || ' replaced ');
      end if;
      owner := greatest(s.owner_epoch + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint);
      select * into strict t from {topics} x where x.name = 'b';
    end if;
    v_now := {now}();
    l := {after}(s.epoch, v_life, s.head, f.own_epoch, f.own, p_events, p_bytes, p_age, v_now);
    own_epoch := s.epoch # v_life;
    own := l.start;
    gap := l.gap;
    own_shareds := l.shareds;
    own_payloads := l.payloads;
    l := {after}(t.epoch, v_life, t.head, f.shared_epoch, f.shared, p_shared_events, p_shared_bytes, p_shared_age, v_now);
    shared_epoch := t.epoch # v_life;
    shared := l.start;
    gap := gap or l.gap;
    shared_payloads := l.payloads;
    if s.owner_epoch <> owner or s.resume <> own or s.resume_shared <> shared then
      update {sessions} x set owner_epoch = owner, holder = p_node, lost = false, resume_epoch = own_epoch, resume = own,
        resume_shared_epoch = shared_epoch, resume_shared = shared, updated_at = now()
      where x.id = s.id;
    end if;
    return next;
  end loop;
end

{reclaim}(
  p_node uuid, p_ids text[], p_owners bigint[],
  p_own_epoch bigint[], p_own bigint[], p_shared_epoch bigint[], p_shared bigint[],
  p_events bigint, p_bytes bigint, p_age bigint,
  p_shared_events bigint, p_shared_bytes bigint, p_shared_age bigint
) returns table (
  nth integer, state text, owner bigint, own_epoch bigint, own bigint, shared_epoch bigint, shared bigint, gap boolean,
  own_shareds bigint[], own_payloads text[], shared_payloads text[]
) language plpgsql volatile
--body
-- Gives sessions back to the node that held them, and reads what it missed.
declare
  v_now bigint := {now}();
  v_life bigint := {life}();
  s {sessions}%rowtype;
  t {topics}%rowtype;
  l record;
  r record;
begin
  if not exists (select from {nodes} n where n.id = p_node and n.lease_ms > v_now) then
    nth := 0;
    state := 'lease';
    return next;
    return;
  end if;
  for r in select i.* from unnest(p_ids, p_owners, p_own_epoch, p_own, p_shared_epoch, p_shared)
    with ordinality i(id, owner, own_epoch, own, shared_epoch, shared, nth) order by i.id collate "C", i.nth
  loop
    nth := r.nth;
    state := 'ok';
    owner := r.owner;
    select * into strict t from {topics} x where x.name = 'b';
    if r.shared_epoch <> t.epoch # v_life then
      -- Not even the broadcasts are those it followed: everything was lost, and whoever has not
      -- claimed the session since did not take it from anybody.
      insert into {sessions} (id, resume_shared) values (r.id, t.head) on conflict do nothing;
    end if;
    select * into s from {sessions} x where x.id = r.id for update;
    -- Read again now that no event of the session can be accepted: one must not be read without the
    -- broadcasts that came before it (G1).
    select * into strict t from {topics} x where x.name = 'b';
    v_now := {now}();
    if s.id is null then
      state := 'lost';
    elsif r.shared_epoch <> t.epoch # v_life and s.owner_epoch = 0 and s.holder is null then
      null;
    elsif s.owner_epoch <> r.owner
      or not (s.holder is not null or s.remembered_ms > v_now or s.info_ms > v_now)
      or not (coalesce(s.holder = p_node, s.lost)) then
      state := 'lost';
    elsif r.own_epoch = s.epoch # v_life and r.own > s.head then
      -- What the node was given is not in the log any more: its offsets must not be given again.
      perform {restart}(s.id, s.epoch, false);
      update {sessions} x set epoch = hashtextextended(gen_random_uuid()::text, 0), head = 0, base = 0, bytes = 0,
        base_bytes = 0, keyed = 0
      where x.id = s.id returning * into s;
    end if;
    if state = 'lost' then
      return next;
      continue;
    end if;
    l := {after}(s.epoch, v_life, s.head, r.own_epoch, r.own, p_events, p_bytes, p_age, v_now);
    own_epoch := s.epoch # v_life;
    own := l.start;
    gap := l.gap;
    own_shareds := l.shareds;
    own_payloads := l.payloads;
    l := {after}(t.epoch, v_life, t.head, r.shared_epoch, r.shared, p_shared_events, p_shared_bytes, p_shared_age, v_now);
    shared_epoch := t.epoch # v_life;
    shared := l.start;
    gap := gap or l.gap;
    shared_payloads := l.payloads;
    update {sessions} x set owner_epoch = r.owner, holder = p_node, lost = false, resume_epoch = own_epoch, resume = own,
      resume_shared_epoch = shared_epoch, resume_shared = shared, updated_at = now()
    where x.id = s.id;
    return next;
  end loop;
end

{fresh}(p_id text, p_life bigint, p_now bigint, out own_epoch bigint, out own bigint, out shared_epoch bigint, out shared bigint)
language plpgsql volatile
--body
-- Where a stream starts that brings no position of its own, in epochs as they are seen. The session
-- is locked.
declare
  s {sessions}%rowtype;
  t {topics}%rowtype;
  n {nodes}%rowtype;
  v_since bigint;
begin
  select * into strict s from {sessions} x where x.id = p_id;
  select * into strict t from {topics} x where x.name = 'b';
  own_epoch := coalesce(s.resume_epoch, s.epoch # p_life);
  own := s.resume;
  shared_epoch := coalesce(s.resume_shared_epoch, t.epoch # p_life);
  shared := s.resume_shared;
  -- A position in logs that were lost is reported as a gap, so it stays what it is.
  if s.holder is null or own_epoch <> s.epoch # p_life or shared_epoch <> t.epoch # p_life then return; end if;
  select * into n from {nodes} x where x.id = s.holder;
  if n.lease_ms > p_now then
    own := s.head;
    shared := t.head;
  else
    -- What its node was sent after it last renewed may never have reached its reader.
    v_since := coalesce(n.lease_ms - n.ttl_ms, 0);
    own := greatest(own,
      coalesce((select min(e.n) - 1 from {events} e where e.epoch = s.epoch and e.at_ms >= v_since), s.head));
    shared := greatest(shared,
      coalesce((select min(e.n) - 1 from {events} e where e.epoch = t.epoch and e.at_ms >= v_since), t.head));
  end if;
end

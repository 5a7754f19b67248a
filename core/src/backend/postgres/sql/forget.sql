{forget}(p_id text) returns boolean language plpgsql volatile
--body
declare
  v_now bigint;
  v_had boolean;
  v_registered boolean;
  s {sessions}%rowtype;
  n {nodes}%rowtype;
begin
  select * into s from {sessions} x where x.id = p_id for update;
  if s.id is null then return false; end if;
  v_now := {now}();
  v_had := s.holder is not null or (s.remembered_ms > v_now and s.remembered_ms < {registered})
    or exists (select from {events} e where e.epoch = s.epoch) or exists (select from {keys} k where k.epoch = s.epoch);
  select * into n from {nodes} x where x.id = s.holder and x.lease_ms > v_now;
  if n.id is not null then
    perform {tell}(n.id, n.polls, 'x' || p_id || ' ' || s.owner_epoch || ' terminated ');
  end if;
  perform {restart}(p_id, s.epoch, s.info_ms > 0 and s.info_ms <= v_now);
  delete from {sessions} x where x.id = p_id;
  v_registered := exists (select from {registry} g where g.id = p_id and g.state = 'o');
  if s.info_ms > v_now or v_registered then
    insert into {sessions} (id, resume_shared, info_ms, due_ms, remembered_ms)
    select p_id, t.head, case when s.info_ms > v_now then s.info_ms else 0 end,
      case when s.info_ms > v_now then s.info_ms end, case when v_registered then {registered} else 0 end
    from {topics} t where t.name = 'b';
  end if;
  return v_had;
end

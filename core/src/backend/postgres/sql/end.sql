{end}(p_id text, p_reason text, p_age bigint) returns boolean language plpgsql volatile
--body
declare
  v_now bigint;
  s {sessions}%rowtype;
  n {nodes}%rowtype;
begin
  select * into s from {sessions} x where x.id = p_id for update;
  if s.holder is null then
    -- Nobody reclaims what was ended.
    update {sessions} x set lost = false where x.id = p_id and x.lost;
    return false;
  end if;
  v_now := {now}();
  select * into n from {nodes} x where x.id = s.holder and x.lease_ms > v_now;
  if n.id is not null then
    perform {tell}(n.id, n.polls, 'x' || p_id || ' ' || s.owner_epoch || ' ' || p_reason || ' ');
  end if;
  perform {unhold}(p_id, {life}(), v_now, p_age, false);
  return n.id is not null;
end

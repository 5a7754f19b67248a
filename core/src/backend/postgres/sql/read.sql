{read}(
  p_id text, p_own_epoch bigint, p_own bigint, p_shared_epoch bigint, p_shared bigint,
  p_events bigint, p_bytes bigint, p_age bigint, p_shared_events bigint, p_shared_bytes bigint, p_shared_age bigint
) returns table (
  own_epoch bigint, own bigint, shared_epoch bigint, shared bigint, gap boolean,
  own_shareds bigint[], own_payloads text[], shared_payloads text[]
) language plpgsql volatile
--body
declare
  v_now bigint := {now}();
  v_life bigint := {life}();
  r record;
  l record;
begin
  -- Both heads as of one moment: with two, what one sender sent in turn could change places (G1). A
  -- session that has expired but was not swept yet is as good as gone.
  select x.epoch, x.head, t.epoch as shared_epoch, t.head as shared into r
  from {sessions} x left join {topics} t on t.name = 'b'
  where x.id = p_id and (x.holder is not null or x.remembered_ms > v_now or x.info_ms > v_now);
  if not found then return; end if;
  if r.shared_epoch is null then raise no_data_found using message = 'the topic is missing'; end if;
  l := {after}(r.epoch, v_life, r.head, p_own_epoch, p_own, p_events, p_bytes, p_age, v_now);
  own_epoch := r.epoch # v_life;
  own := l.start;
  gap := l.gap;
  own_shareds := l.shareds;
  own_payloads := l.payloads;
  l := {after}(r.shared_epoch, v_life, r.shared, p_shared_epoch, p_shared, p_shared_events, p_shared_bytes, p_shared_age, v_now);
  shared_epoch := r.shared_epoch # v_life;
  shared := l.start;
  gap := gap or l.gap;
  shared_payloads := l.payloads;
  return next;
end

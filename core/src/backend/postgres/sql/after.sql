{after}(
  p_epoch bigint, p_life bigint, p_head bigint, p_from_epoch bigint, p_from bigint,
  p_events bigint, p_bytes bigint, p_age bigint, p_now bigint,
  out start bigint, out gap boolean, out shareds bigint[], out payloads text[]
) language plpgsql volatile
--body
-- What a log holds after a position; when that can't be had without loss, all that is retained, and
-- a gap. What is beyond retention may not be removed yet.
declare
  v_first bigint;
begin
  start := p_from;
  gap := false;
  if p_from_epoch = (p_epoch # p_life) and p_from = p_head then return; end if;
  select coalesce(min(x.n), p_head + 1) into v_first from (
    select e.n, sum(octet_length(e.payload)) over (order by e.n desc) as size
    from {events} e
    where e.epoch = p_epoch and e.n > p_head - p_events and e.n <= p_head and e.at_ms + p_age > p_now
  ) x where x.size <= p_bytes or x.n = p_head;
  gap := not (p_from_epoch = (p_epoch # p_life) and p_from <= p_head and p_from + 1 >= v_first);
  if gap then start := v_first - 1; end if;
  if start = p_head then return; end if;
  select array_agg(e.shared order by e.n), array_agg(e.payload order by e.n) into shareds, payloads
  from {events} e where e.epoch = p_epoch and e.n > start and e.n <= p_head;
  -- Nobody else may have removed some meanwhile.
  if coalesce(cardinality(payloads), 0) <> p_head - start then
    raise exception using errcode = '40001', message = 'the log was trimmed while it was read';
  end if;
end

{trim}(p_epoch bigint, p_head bigint, p_events bigint, p_bytes bigint, p_since bigint) returns void language plpgsql volatile
--body
-- Removes what a log does not retain; what is null is no bound now. The newest stays however large
-- it is.
declare
  v_n bigint;
  -- Without a time only the last batch, of 1,024 events at most, made it too many: what is below was removed
  -- before, and its dead entries are not read again.
  v_low bigint := case when p_since is null then p_head - p_events - p_events / 4 - 2048 else 0 end;
begin
  delete from {events} e where e.epoch = p_epoch and e.n > v_low and e.n <= p_head - p_events;
  if p_since is not null then
    select max(e.n) into v_n from {events} e where e.epoch = p_epoch and e.at_ms <= p_since;
    if v_n is not null then delete from {events} e where e.epoch = p_epoch and e.n <= v_n; end if;
  end if;
  if p_bytes is not null then
    select max(x.n) into v_n from (
      select e.n, sum(octet_length(e.payload)) over (order by e.n desc) as size from {events} e
      where e.epoch = p_epoch and e.n > v_low
    ) x where x.size > p_bytes and x.n < p_head;
    if v_n is not null then delete from {events} e where e.epoch = p_epoch and e.n > v_low and e.n <= v_n; end if;
  end if;
end

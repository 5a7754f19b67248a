{read_topic}(p_name text, p_epoch bigint, p_from bigint, p_events bigint, p_bytes bigint, p_age bigint)
returns table (own_epoch bigint, own bigint, gap boolean, payloads text[]) language plpgsql volatile
--body
declare
  v_life bigint := {life}();
  t {topics}%rowtype;
  l record;
  s {notes}%rowtype;
begin
  if p_name = 'n' then
    perform {keep_notes}();
    select * into s from {notes};
  end if;
  select * into strict t from {topics} x where x.name = p_name;
  if p_epoch = s.was # v_life then
    -- What this node has beyond is lost, and what is there is what it has.
    p_epoch := t.epoch # v_life;
    p_from := least(p_from, s.head);
  end if;
  if p_epoch = t.epoch # v_life and p_from > t.head then
    -- What this node was given is not in the log any more: its offsets must not be given again.
    select * into strict t from {topics} x where x.name = p_name for update;
    if p_epoch = t.epoch # v_life and p_from > t.head then
      perform {restart}('', t.epoch, false);
      update {topics} x set epoch = hashtextextended(gen_random_uuid()::text, 0), base = x.head, base_bytes = x.bytes,
        keyed = 0
      where x.name = p_name returning * into t;
    end if;
  end if;
  l := {after}(t.epoch, v_life, t.head, p_epoch, p_from, p_events, p_bytes, p_age, {now}());
  own_epoch := t.epoch # v_life;
  own := l.start;
  gap := l.gap;
  payloads := l.payloads;
  return next;
end

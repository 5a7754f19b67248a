{registry_begin_close}(p_ids text[], p_reasons text[], p_grace bigint, p_now bigint) returns void
language plpgsql volatile
--body
-- From here on the sessions are gone for everybody. Their records are locked, and open.
begin
  update {registry} g set state = 'c', reason = i.reason, due_ms = p_now + p_grace
  from unnest(p_ids, p_reasons) i(id, reason) where g.id = i.id;
  perform from {sessions} s where s.id = any(p_ids) order by s.id collate "C" for update;
  update {sessions} s set remembered_ms = least(s.remembered_ms, p_now) where s.id = any(p_ids);
  perform {tell_closing}(p_ids, p_reasons, p_now);
end

{take_mail}(p_node uuid, p_seq bigint) returns setof text language plpgsql volatile
--body
-- Takes one message of the mail, or all that wait.
begin
  perform set_config('synchronous_commit', 'off', true);
  return query with taken as (
    delete from {mail} m where m.node = p_node and (p_seq is null or m.seq = p_seq) returning m.seq, m.message
  ) select t.message from taken t order by t.seq;
end

{renew}(p_node uuid, p_ttl bigint) returns boolean language plpgsql volatile
--body
declare
  v_now bigint := {now}();
begin
  -- Nothing is lost with a renewal that is not on disk yet.
  perform set_config('synchronous_commit', 'off', true);
  update {nodes} n set lease_ms = v_now + p_ttl where n.id = p_node and n.lease_ms > v_now;
  return found;
end

{subscribe}(p_id text, p_uri text, p_ttl bigint, p_max bigint) returns integer language plpgsql volatile
--body
-- 1 if subscribed, 0 if it was, -1 beyond the most subscriptions. The session's row is locked.
begin
  perform {touch}(array[p_id], p_ttl, {now}());
  if exists (
    select from {subscriptions} x
    where x.id = p_id and hashtextextended(x.value, 0) = hashtextextended(p_uri, 0) and x.value = p_uri
  ) then return 0; end if;
  if (select count(*) from (select from {subscriptions} x where x.id = p_id limit p_max) y) >= p_max then return -1; end if;
  insert into {subscriptions} (id, value) values (p_id, p_uri);
  return 1;
end

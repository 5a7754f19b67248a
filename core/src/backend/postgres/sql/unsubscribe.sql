{unsubscribe}(p_id text, p_uri text) returns boolean language plpgsql volatile
--body
begin
  perform from {sessions} s where s.id = p_id for update;
  delete from {subscriptions} x
  where x.id = p_id and hashtextextended(x.value, 0) = hashtextextended(p_uri, 0) and x.value = p_uri;
  return found;
end

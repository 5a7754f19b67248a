{drop_logs}(p_scopes text[], p_logs text[]) returns void language plpgsql volatile
--body
-- Each log of the scope in its place.
begin
  delete from {logs} l using unnest(p_scopes, p_logs) i(scope, log) where l.scope = i.scope and l.log = i.log;
end

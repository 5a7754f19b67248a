{logs_of}(p_scopes text[]) returns table (nth integer, logs text[]) language plpgsql volatile
--body
begin
  return query
  select i.nth::integer, array(select l.log from {logs} l where l.scope = i.scope)
  from unnest(p_scopes) with ordinality i(scope, nth);
end

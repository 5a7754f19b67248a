{registry_owned}(p_owner text) returns table (id text) language plpgsql volatile
--body
begin
  return query select g.id from {registry} g where g.owner = p_owner order by g.created_ms, g.id;
end

{registry_key}(p_candidate text) returns text language plpgsql volatile
--body
begin
  update {meta} m set owner_key = p_candidate where m.owner_key is null;
  return (select m.owner_key from {meta} m);
end

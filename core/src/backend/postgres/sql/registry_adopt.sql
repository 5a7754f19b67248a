{registry_adopt}(p_id text, p_node uuid) returns boolean language plpgsql volatile
--body
begin
  update {registry} g set node = p_node where g.id = p_id and g.state = 'o';
  return found;
end

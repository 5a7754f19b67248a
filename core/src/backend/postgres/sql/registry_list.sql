{registry_list}(p_owner text, p_node uuid, p_after text, p_limit bigint) returns table (id text) language plpgsql volatile
--body
begin
  if p_owner is not null then
    return query select g.id from {registry} g
    where g.owner = p_owner and (p_node is null or g.node = p_node) and g.id > p_after and g.state <> 'd'
    order by g.id limit p_limit;
  elsif p_node is not null then
    return query select g.id from {registry} g
    where g.node = p_node and g.id > p_after and g.state <> 'd' order by g.id limit p_limit;
  else
    return query select g.id from {registry} g where g.id > p_after and g.state <> 'd' order by g.id limit p_limit;
  end if;
end

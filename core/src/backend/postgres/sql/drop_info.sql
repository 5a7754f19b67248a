{drop_info}(p_ids text[]) returns text[] language plpgsql volatile
--body
-- Removes the documents and resource subscriptions of sessions; which had any.
declare
  v_had text[];
begin
  with a as (delete from {client_info} d where d.id = any(p_ids) returning d.id),
    b as (delete from {client_capabilities} d where d.id = any(p_ids) returning d.id),
    c as (delete from {log_level} d where d.id = any(p_ids) returning d.id),
    d as (delete from {protocol_version} d where d.id = any(p_ids) returning d.id),
    e as (delete from {initialize_params} d where d.id = any(p_ids) returning d.id),
    f as (delete from {subscriptions} d where d.id = any(p_ids) returning d.id)
  select coalesce(array_agg(x.id), '{}') into v_had from (
    select id from a union select id from b union select id from c
    union select id from d union select id from e union select id from f) x;
  return v_had;
end

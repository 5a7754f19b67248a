declare
  k record;
begin
  -- One row a session was all that the key allowed.
  for k in select c.conname from pg_constraint c where c.conrelid = {subscriptions_text}::regclass and c.contype in ('p', 'u') loop
    execute format('alter table %s drop constraint %I', {subscriptions_text}, k.conname);
  end loop;
end

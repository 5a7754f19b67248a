{life}() returns bigint language plpgsql volatile
--body
-- What every epoch is changed by before anybody sees it. Where events that were accepted may be lost
-- (a standby was promoted; the server crashed and somebody had asked for no more), it is a new
-- number, so that no position given before fits the logs after. Unlogged tables are empty then.
declare
  v_life bigint;
  v_origin text;
  m {meta}%rowtype;
begin
  v_life := {known_life};
  if v_life is not null then return v_life; end if;
  v_origin := left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);
  select * into strict m from {meta} x where x.one for update;
  if m.origin = v_origin and (not m.relaxed or exists (select from {canary} c where c.n = m.canary)) then
    return m.life;
  end if;
  -- A database without a past has nothing to lose yet.
  if m.origin <> '' and (m.origin <> v_origin or m.canary <> 0) then
    m.life := hashtextextended(gen_random_uuid()::text, 0);
  end if;
  m.canary := hashtextextended(gen_random_uuid()::text, 0);
  delete from {canary};
  insert into {canary} values (m.canary);
  update {meta} x set life = m.life, origin = v_origin, canary = m.canary where x.one;
  return m.life;
end

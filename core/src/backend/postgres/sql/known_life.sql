(select x.life from {meta} x where x.one and x.origin = left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
  and (not x.relaxed or exists (select from {canary} c where c.n = x.canary)))

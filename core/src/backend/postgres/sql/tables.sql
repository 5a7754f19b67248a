create table if not exists {sessions} (id text primary key, updated_at timestamp default now());
alter table {sessions}
  add column if not exists epoch bigint not null default hashtextextended(gen_random_uuid()::text, 0),
  add column if not exists head bigint not null default 0,
  add column if not exists base bigint not null default 0,
  add column if not exists bytes bigint not null default 0,
  add column if not exists base_bytes bigint not null default 0,
  add column if not exists keyed integer not null default 0,
  add column if not exists owner_epoch bigint not null default 0,
  add column if not exists holder uuid,
  add column if not exists lost boolean not null default false,
  add column if not exists resume_epoch bigint,
  add column if not exists resume bigint not null default 0,
  add column if not exists resume_shared_epoch bigint,
  add column if not exists resume_shared bigint not null default 0,
  add column if not exists remembered_ms bigint not null default 0,
  add column if not exists info_ms bigint not null default 0,
  add column if not exists due_ms bigint;
-- Room for another version of every row of a page: a round of events to all sessions touches no index.
alter table {sessions} set (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
create index if not exists {sessions_holder} on {sessions} (holder) where holder is not null;
create index if not exists {sessions_due} on {sessions} (due_ms) where due_ms is not null;
create table if not exists {client_info} (id text primary key, value text);
create table if not exists {client_capabilities} (id text primary key, value text);
create table if not exists {log_level} (id text primary key, value text);
create table if not exists {protocol_version} (id text primary key, value text);
create table if not exists {initialize_params} (id text primary key, value text);
create table if not exists {subscriptions} (id text not null, value text not null);
do {drop_subscriptions_key};
create index if not exists {subscriptions_id} on {subscriptions} (id, hashtextextended(value, 0));
create index if not exists {subscriptions_value} on {subscriptions} (hashtextextended(value, 0));
create table if not exists {events} (
  epoch bigint not null,
  n bigint not null,
  at_ms bigint not null,
  shared bigint not null,
  payload text not null,
  primary key (epoch, n)
);
alter table {events} set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);
create table if not exists {keys} (
  epoch bigint not null,
  key text not null,
  at_ms bigint not null,
  primary key (epoch, key)
);
create table if not exists {topics} (
  name text primary key,
  epoch bigint not null default hashtextextended(gen_random_uuid()::text, 0),
  head bigint not null default 0,
  base bigint not null default 0,
  bytes bigint not null default 0,
  base_bytes bigint not null default 0,
  keyed integer not null default 0,
  due_ms bigint not null default 0
);
alter table {topics} set (fillfactor = 10);
insert into {topics} (name) values ('b'), ('n') on conflict do nothing;
create table if not exists {nodes} (
  id uuid primary key,
  ttl_ms bigint not null,
  lease_ms bigint not null,
  polls boolean not null
);
alter table {nodes} set (fillfactor = 50);
create unlogged table if not exists {mail} (
  node uuid not null,
  seq bigint generated always as identity,
  message text not null,
  primary key (node, seq)
);
create unlogged table if not exists {canary} (n bigint primary key);
create unlogged table if not exists {notes} (
  one boolean primary key default true check (one),
  was bigint not null,
  head bigint not null
);
create table if not exists {registry} (
  id text primary key,
  owner text,
  node uuid not null,
  created_ms bigint not null,
  access_ms bigint not null,
  state text not null,
  reason text,
  metadata text,
  due_ms bigint not null
);
alter table {registry} set (fillfactor = 85);
create index if not exists {registry_owner} on {registry} (owner, created_ms) where owner is not null;
create index if not exists {registry_node} on {registry} (node);
create index if not exists {registry_due} on {registry} (due_ms);
create table if not exists {requests} (
  id text not null,
  node uuid not null,
  count integer not null,
  primary key (id, node)
);
create table if not exists {logs} (
  scope text not null,
  log text not null,
  until_ms bigint not null,
  primary key (scope, log)
);
create index if not exists {logs_until} on {logs} (until_ms);
create table if not exists {meta} (
  one boolean primary key default true check (one),
  version integer not null default 0,
  functions text not null default '',
  life bigint not null default 0,
  origin text not null default '',
  canary bigint not null default 0,
  relaxed boolean not null default false
);
alter table {meta} add column if not exists owner_key text;
insert into {meta} default values on conflict do nothing;
insert into {sessions} as s (id, info_ms, due_ms)
select id, x.until, x.until
from (
  select id from {client_info} union select id from {client_capabilities} union select id from {log_level}
  union select id from {subscriptions}
) known, (select (extract(epoch from now()) * 1000)::bigint + 86400000 as until) x
where id is not null
on conflict (id) do update set info_ms = excluded.info_ms, due_ms = least(s.due_ms, excluded.due_ms)
where s.info_ms = 0;

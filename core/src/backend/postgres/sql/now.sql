{now}() returns bigint language sql volatile
--body
select (extract(epoch from clock_timestamp()) * 1000)::bigint

-- Networks (CIDR) that a client or user may be used from, as words; none: from everywhere.
alter table credentials add column networks text not null default '';

-- Reading messages has a scope of its own, which those who operated had implicitly.
update credentials set scopes = scopes || ' bodies' where ' ' || scopes || ' ' like '% operate %';

-- What `--dev` made belongs to "dev", by which it is found again. The hash is that of dev's secret.
update credentials set owner = 'dev' where kind in ('client', 'user') and id = 'dev' and exists (
    select 1 from credentials where kind = 'client' and id = 'dev'
        and secret_hash = x'298754db2dbab6ec62605ceb0379eb7ee376580359449efe0caa3aa06cd56736'
);

-- Who did what, when and from where. `account` is null for what concerns no single one.
create table audit (
    number integer primary key autoincrement,
    at real not null,
    actor text not null,
    address text not null,
    action text not null,
    account text,
    subject text not null,
    detail text not null
) strict;

create index audit_by_account on audit (account, number);

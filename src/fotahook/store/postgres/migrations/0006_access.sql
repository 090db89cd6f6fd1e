-- Networks (CIDR) that a client or user may be used from; none: from everywhere.
alter table credentials add column networks text[] not null default '{}';

-- Reading messages has a scope of its own, which those who operated had implicitly.
update credentials set scopes = scopes || '{bodies}' where 'operate' = any(scopes);

-- What `--dev` made belongs to "dev", by which it is found again.
update credentials set owner = 'dev' where kind in ('client', 'user') and id = 'dev' and exists (
    select from credentials where kind = 'client' and id = 'dev' and secret_hash = sha256('dev-secret')
);

-- Who did what, when and from where. `account` is null for what concerns no single one.
create table audit (
    number bigint generated always as identity primary key,
    at double precision not null default store_now(),
    actor text not null,
    address text not null,
    action text not null,
    account text,
    subject text not null,
    detail text not null
);

create index audit_by_account on audit (account, number);

-- A PostgreSQL store of schema 10.
create function store_now() returns double precision
    language sql stable parallel safe
    as $$ select extract(epoch from now())::double precision $$;

create table callbacks (
    account text collate "C" primary key,
    url text not null,
    revision bigint not null,
    registered_at double precision not null
);

create table callback_history (
    account text collate "C" not null,
    revision bigint not null,
    url text,
    actor text not null,
    at double precision not null,
    primary key (account, revision)
);


create sequence places;

create table messages (
    seq bigint primary key default nextval('places'),
    id text collate "C" not null unique,
    account text collate "C" not null,
    type text,
    ordering_key text,
    idempotency_key text collate "C",
    body bytea,
    size bigint not null,
    sha256 bytea not null,
    accepted_at double precision not null,
    duplicates bigint not null default 0
);

create unique index messages_by_idempotency_key on messages (account, idempotency_key)
    where idempotency_key is not null;
create index messages_by_account on messages (account, seq);
create index messages_with_body on messages (accepted_at, seq) include (size) where body is not null;

create table lanes (
    id bigint generated always as identity primary key,
    account text collate "C" not null,
    consumer text collate "C" not null,
    held boolean not null,
    paused boolean not null default false,
    token bigint not null default 0,
    due double precision,
    wait_until double precision not null default 0,
    leased_until double precision not null default 0,
    next double precision generated always as (greatest(due, wait_until, leased_until)) stored,

    stopped_at double precision,
    stopped_for double precision not null default 0,
    failures integer not null default 0,
    "window" integer not null default 1,
    refused integer not null default 0,
    reason text,
    unique (account, consumer)
);

create index lanes_by_next on lanes (next) where not held and not paused and due is not null;

create table limits (
    account text collate "C" primary key,
    in_flight integer,
    per_second double precision
);



create table deliveries (
    seq bigint not null,
    lane bigint not null,
    place bigint not null,
    key text collate "C",
    state text not null check (state in ('ready', 'behind', 'delivered', 'dead')),
    due double precision not null,
    born double precision not null,
    attempts integer not null default 0,
    strikes integer not null default 0,
    settled_at double precision,
    last_outcome text,
    primary key (seq, lane)
);

create index deliveries_ready on deliveries (lane, due, place) where state = 'ready';
create index deliveries_by_key on deliveries (lane, key, place) where key is not null and state in ('ready', 'behind');
create index deliveries_pending on deliveries (lane, seq) where state in ('ready', 'behind');
create index deliveries_dead on deliveries (lane, seq) where state = 'dead';

create view backlogs as
select l.id as lane,
    (select count(*) from deliveries where lane = l.id and state in ('ready', 'behind')) as pending,
    (select count(*) from deliveries where lane = l.id and state = 'dead') as dead,
    (select m.accepted_at from deliveries d join messages m on m.seq = d.seq
     where d.lane = l.id and d.state in ('ready', 'behind') order by d.seq limit 1) as oldest_accepted_at
from lanes l;

create table attempts (
    seq bigint not null,
    number bigint generated always as identity,
    lane bigint not null,
    started_at double precision not null,
    url text,
    outcome text not null,
    status integer,
    error_code text,
    fix text,
    phases text not null,
    excerpt text not null,
    primary key (seq, number)
);

create table redeliveries (
    id bigint generated always as identity primary key,
    account text collate "C" not null,
    state text not null,
    since double precision not null,
    until double precision not null,
    done bigint not null default 0,
    last bigint not null
);

create table credentials (
    kind text collate "C" not null,
    id text collate "C" not null,
    owner text collate "C" not null,
    secret_hash bytea not null,
    accounts text[],
    scopes text[] not null,
    created_at double precision not null,
    expires_at double precision,
    primary key (kind, id)
);

create index credentials_by_owner on credentials (kind, owner, created_at);

create view lane_facts as
select l.id as lane, c.url, coalesce(c.revision, 0) as revision, m.in_flight, m.per_second,
    array(
        select k.id from credentials k
        where k.kind = 'signing_key' and k.owner = l.account and (k.expires_at is null or k.expires_at > store_now())
        order by k.created_at
    ) as signing_keys
from lanes l
left join callbacks c on c.account = l.account and l.consumer = ''
left join limits m on m.account = l.account;
alter table attempts add column at double precision, add column state text;
create unique index attempts_by_number on attempts (number);

alter table callback_history add column number bigint generated always as identity;
create unique index callback_history_by_number on callback_history (number);


alter table lanes add column told text generated always as (
    case when paused then 'paused' when held then 'held' when failures > 0 then 'waiting' else 'open' end
) stored;

create table lane_changes (
    number bigint generated always as identity primary key,
    lane bigint not null,
    at double precision not null,
    state text not null,
    until double precision,
    reason text
);

create function tell_lane_change() returns trigger language plpgsql as $$
begin
    insert into lane_changes (lane, at, state, until, reason) values (
        new.id, store_now(), new.told, case when new.told = 'waiting' then new.wait_until end, new.reason
    );
    return null;
end
$$;

create trigger lane_changed after update of paused, held, failures on lanes
    for each row when (old.told <> new.told) execute function tell_lane_change();


create table counts (
    minute bigint not null,
    lane bigint not null,
    accepted bigint not null default 0,
    delivered bigint not null default 0,
    failed bigint not null default 0,
    dead bigint not null default 0,
    primary key (minute, lane)
);
update messages m set idempotency_key = chr(1) || encode(m.sha256, 'hex')
where m.idempotency_key = 'body:' || encode(m.sha256, 'hex') and not exists (
    select from deliveries d join lanes l on l.id = d.lane where d.seq = m.seq and l.consumer = ''
);
alter table attempts add column resent boolean not null default false;
alter table lanes
    add column succeeded double precision not null default 0,
    add column failed double precision not null default 0,
    add column latency double precision not null default 0;

alter table lanes alter column "window" set default 4;
update lanes set "window" = 4 where failures = 0 and "window" < 4;

alter table callbacks add column origin text generated always as (substring(url from '^[a-z]+://[^/?]*')) stored;
create index callbacks_by_origin on callbacks (origin);
create table fotahook_migrations (number integer primary key);
insert into fotahook_migrations (number) select generate_series(1, 10);
insert into attempts (seq,number,lane,started_at,url,outcome,status,error_code,fix,phases,excerpt,at,state,resent) overriding system value values
    ('1', '1', '2', '1790000001', 'https://receiver.example/callbacks', 'failed', '503', 'timeout_connect', NULL, '{"connect":0.2,"total":1.5}', 'ok', '1796080233.311398', 'pending', 'false'),
    ('1', '2', '2', '1790000001', 'https://receiver.example/callbacks', 'delivered', '200', NULL, NULL, '{"connect":0.2,"total":1.5}', 'ok', '1796080233.328444', 'delivered', 'false'),
    ('2', '3', '2', '1790000001', 'https://receiver.example/callbacks', 'failed', '503', 'response_4xx', NULL, '{"connect":0.2,"total":1.5}', 'ok', '1796080233.358075', 'dead', 'false'),
    ('3', '4', '2', '1790000001', 'https://receiver.example/callbacks', 'delivered', '200', NULL, NULL, '{"connect":0.2,"total":1.5}', 'ok', '1796080233.3825', 'delivered', 'false'),
    ('4', '5', '2', '1790000001', 'https://receiver.example/callbacks', 'delivered', '200', NULL, NULL, '{"connect":0.2,"total":1.5}', 'ok', '1796080233.40571', 'delivered', 'false'),
    ('11', '6', '3', '1790000001', 'https://receiver.example/callbacks', 'failed', '503', 'timeout_connect', NULL, '{"connect":0.2,"total":1.5}', 'ok', '1796080233.475763', 'pending', 'false');
insert into callback_history (account,revision,url,actor,at,number) overriding system value values
    ('moved', '1', 'https://receiver.example/moved', 'test', '1796080233.197104', '1'),
    ('open', '1', 'https://receiver.example/open', 'test', '1796080233.24111', '2'),
    ('trouble', '1', 'https://receiver.example/trouble', 'test', '1796080233.249542', '3'),
    ('moved', '2', 'https://other.example/moved', 'test', '1796080233.264884', '4'),
    ('moved', '3', NULL, 'test', '1796080233.269508', '5');
insert into callbacks (account,url,revision,registered_at) overriding system value values
    ('open', 'https://receiver.example/open', '1', '1796080233.24111'),
    ('trouble', 'https://receiver.example/trouble', '1', '1796080233.249542');
insert into counts (minute,lane,accepted,delivered,failed,dead) overriding system value values
    ('29934670', '2', '8', '3', '2', '1'),
    ('29934670', '1', '1', '0', '0', '0'),
    ('29934670', '3', '1', '0', '1', '0'),
    ('29934670', '5', '1', '0', '0', '0'),
    ('29934670', '4', '1', '0', '0', '0');
insert into credentials (kind,id,owner,secret_hash,accounts,scopes,created_at,expires_at) overriding system value values
    ('client', 'c', '', E'\\x78', NULL, '{publish}', '0', NULL);
insert into deliveries (seq,lane,place,key,state,due,born,attempts,strikes,settled_at,last_outcome) overriding system value values
    ('1', '2', '1', NULL, 'delivered', '1796080233.328444', '1796080233.275534', '1', '0', '1796080233.328444', 'delivered'),
    ('2', '2', '2', 'd', 'dead', '1796080233.358075', '1796080233.34564', '8', '0', '1796080233.358075', 'failed'),
    ('4', '2', '4', NULL, 'delivered', '1796080233.40571', '1796080233.392895', '1', '0', '1796080233.40571', 'delivered'),
    ('3', '2', '5', NULL, 'ready', '1796080233.410142', '1796080233.410142', '0', '0', NULL, 'delivered'),
    ('6', '2', '6', 'chain', 'ready', '1796080233.426482', '1796080233.426482', '0', '0', NULL, NULL),
    ('7', '2', '7', 'chain', 'behind', '1796080233.426482', '1796080233.426482', '0', '0', NULL, NULL),
    ('8', '2', '8', 'chain', 'behind', '1796080233.426482', '1796080233.426482', '0', '0', NULL, NULL),
    ('9', '2', '9', NULL, 'ready', '1796080233.426482', '1796080233.426482', '0', '0', NULL, NULL),
    ('10', '1', '10', NULL, 'ready', '1796080233.432144', '1796080233.269508', '0', '0', NULL, NULL),
    ('11', '3', '11', NULL, 'ready', '1796080238.475763', '1796080233.446253', '0', '1', NULL, 'failed'),
    ('12', '4', '12', NULL, 'ready', '1796080233.484857', '1796080233.484857', '0', '0', NULL, NULL),
    ('12', '5', '12', NULL, 'ready', '1796080233.484857', '1796080233.484857', '0', '0', NULL, NULL);
insert into lane_changes (number,lane,at,state,until,reason) overriding system value values
    ('1', '1', '1796080233.197104', 'open', NULL, NULL),
    ('2', '2', '1796080233.24111', 'open', NULL, NULL),
    ('3', '3', '1796080233.249542', 'open', NULL, NULL),
    ('4', '1', '1796080233.269508', 'held', NULL, NULL),
    ('5', '3', '1796080233.475763', 'waiting', '1796080238.475763', 'timeout_connect');
insert into lanes ("id","account","consumer","held","paused","token","due","wait_until","leased_until","stopped_at","stopped_for","failures","window","refused","reason","succeeded","failed","latency") overriding system value values
    ('1', 'moved', '', 'true', 'false', '0', '1796080233.432144', '0', '0', '1796080233.269508', '0', '0', '4', '0', NULL, '0', '0', '0'),
    ('2', 'open', '', 'false', 'false', '5', '1796080233.410142', '0', '0', NULL, '0', '0', '4', '0', NULL, '0', '0', '0'),
    ('3', 'trouble', '', 'false', 'false', '1', '1796080238.475763', '1796080238.475763', '0', NULL, '0', '1', '1', '0', 'timeout_connect', '0', '0', '0'),
    ('5', 'inbox', 'handlers', 'false', 'false', '0', '1796080233.484857', '0', '0', NULL, '0', '0', '4', '0', NULL, '0', '0', '0'),
    ('4', 'inbox', 'billing', 'false', 'false', '0', '1796080233.484857', '0', '0', NULL, '0', '0', '4', '0', NULL, '0', '0', '0');
insert into limits (account,in_flight,per_second) overriding system value values
    ('open', '3', NULL);
insert into messages (seq,id,account,type,ordering_key,idempotency_key,body,size,sha256,accepted_at,duplicates) overriding system value values
    ('1', '01a0c450-6c00-7000-9d84-931ec3f3f5f3', 'open', 't', NULL, 'key-1', E'\\x7b226e223a2264656c697665726564227d', '17', E'\\x07004fe703112f6d417a0f9b97ebc4d879e00ea1aed5d5aaa4c49769223c1301', '1796080233.275534', '0'),
    ('2', '01a0c450-6c00-7001-9a24-304631d818e7', 'open', NULL, 'd', NULL, E'\\x7b226e223a2264656164227d', '12', E'\\xe0f0fe3e32b0ebfcb6d3ff224066ad46bd53aa8a13b9f6cbf3a6f31a03097964', '1796080233.34564', '0'),
    ('3', '01a0c450-6c00-7002-a846-8c7ddad354ea', 'open', NULL, NULL, NULL, E'\\x7b226e223a22726564656c697665726564227d', '19', E'\\xfe514b55fe55ca6a43ad4c52815c3339c04309a3953abf90ff7824d2af21bfdb', '1796080233.369623', '0'),
    ('6', '01a0c450-6c00-7004-b8d4-046ef683f29d', 'open', NULL, 'chain', NULL, E'\\x7b226e223a22636861696e2031227d', '15', E'\\xd2c1eca1932edfeb8d1373f5d3010f9b41e93e75b877a984ceee84e2866409d5', '1796080233.426482', '0'),
    ('7', '01a0c450-6c00-7005-a900-082e7e2ea48b', 'open', NULL, 'chain', NULL, E'\\x7b226e223a22636861696e2032227d', '15', E'\\x09bb375366154868584d2dde6f677fae0dace7ea7d54807f7ba2dd999cb72117', '1796080233.426482', '0'),
    ('8', '01a0c450-6c00-7006-be65-7e4ac5882c27', 'open', NULL, 'chain', NULL, E'\\x7b226e223a22636861696e2033227d', '15', E'\\x89ed96adb541c55db484c25429ba0f2aa57d1c8f0c48e92fd08f35d03b019e85', '1796080233.426482', '0'),
    ('9', '01a0c450-6c00-7007-baea-885611cc1545', 'open', NULL, NULL, NULL, E'\\x7b226e223a2266726565227d', '12', E'\\xd1a31d0517812c919fed86145da123d8074418d331e8d49cf1bd02ff1c73bcdd', '1796080233.426482', '0'),
    ('10', '01a0c450-6c00-7008-abe6-ad76463e4ece', 'moved', NULL, NULL, NULL, E'\\x7b226e223a2268656c64227d', '12', E'\\x3549dee831fa96299b63c3a9c7735c64cb0695e41c3c5f4a865be95d9b981b52', '1796080233.432144', '0'),
    ('11', '01a0c450-6c00-7009-bb25-1135fad709e7', 'trouble', NULL, NULL, NULL, E'\\x7b226e223a227761697473227d', '13', E'\\xe93a5ec3e385f8a444cf05e1b6d0b0feaf5a3f3891f01c8ffd1b7cdacc3d9667', '1796080233.446253', '0'),
    ('12', '01a0c450-6c00-700a-bac6-b8c4e406b0c4', 'inbox', NULL, NULL, '621021575dcda0a5e8d68d0df2d0a7448cfe1e04ed971a84acbc050b1809c077', E'\\x7b226e223a226b6e6f776e206279206279746573227d', '22', E'\\x621021575dcda0a5e8d68d0df2d0a7448cfe1e04ed971a84acbc050b1809c077', '1796080233.484857', '0'),
    ('4', '01a0c450-6c00-7003-8208-d6dd5c19fb83', 'open', NULL, NULL, 'key-2', NULL, '14', E'\\xb399ab845f797d020d9aea8191711d05338dd57873519ccf2c3dd3b42ca5e643', '1796080233.392895', '0');
select setval('places', 12);
select setval('lanes_id_seq', 5);
select setval('attempts_number_seq', 6);
select setval('callback_history_number_seq', 5);
select setval('lane_changes_number_seq', 5);

alter table credentials add column networks text[] not null default '{}';

update credentials set scopes = scopes || '{bodies}' where 'operate' = any(scopes);

update credentials set owner = 'dev' where kind in ('client', 'user') and id = 'dev' and exists (
    select from credentials where kind = 'client' and id = 'dev' and secret_hash = sha256('dev-secret')
);

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

create table campaigns (
    id bigint generated always as identity primary key,
    account text collate "C" not null,
    campaign text collate "C" not null,
    ends_at double precision,
    cursor text not null default '',
    unique (account, campaign)
);

create index campaigns_by_end on campaigns (ends_at) where ends_at is not null;

create table ledger (
    campaign bigint not null,
    device text collate "C" not null,
    seq bigint not null default 0,
    status text,
    rank integer not null default 0,
    at double precision,
    by_report boolean not null default false,
    repairs integer not null default 0,
    primary key (campaign, device)
);

create table notes (
    seq bigint primary key,
    note text not null
);

insert into campaigns (account, campaign, ends_at) values ('inbox', 'c1', 1790100000);
insert into ledger (campaign, device, seq, status, rank, at) values (1, '990013907835573', 12, 'UpgradeSuccess', 5, 1790000000);

alter table ledger add column detail text;

create table bodies (
    seq bigint primary key,
    body bytea not null
);

insert into bodies (seq, body) select seq, body from messages where body is not null order by seq;

create table pending (
    lane bigint not null,
    seq bigint not null,
    place bigint not null,
    key text collate "C",
    ready boolean not null,
    due double precision not null,
    born double precision not null,
    attempts integer not null default 0,
    strikes integer not null default 0,
    handled boolean not null default false,
    primary key (lane, seq)
) with (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0
);

insert into pending (lane, seq, place, key, ready, due, born, attempts, strikes, handled)
select lane, seq, place, key, state = 'ready', due, born, attempts, strikes, coalesce(last_outcome = 'handled', false)
from deliveries
where state in ('ready', 'behind') order by seq;

create index pending_ready on pending (lane, due, place) where ready;
create index pending_by_key on pending (lane, key, place) where key is not null;

create table dead (
    lane bigint not null,
    seq bigint not null,
    attempts integer not null,
    settled_at double precision not null,
    primary key (lane, seq)
);

insert into dead (lane, seq, attempts, settled_at)
select lane, seq, attempts, coalesce(settled_at, due) from deliveries where state = 'dead';

alter table attempts add column charged integer;
update attempts a set at = coalesce(a.at, a.started_at),
    state = coalesce(a.state, case a.outcome when 'delivered' then 'delivered' else 'pending' end),
    charged = coalesce((select d.attempts from deliveries d where d.lane = a.lane and d.seq = a.seq), 1);
alter table attempts alter column at set not null, alter column state set not null, alter column charged set not null;

drop view backlogs;
drop table deliveries;
drop index messages_with_body;
drop index messages_by_account;
create index messages_by_account on messages (account, (seq + 0));
alter table messages drop column body;

alter table lanes add column since double precision not null default 0;
alter table lanes set (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);

create table lane_names (
    account text collate "C" not null,
    consumer text collate "C" not null,
    primary key (account, consumer)
);

insert into lane_names (account, consumer) select account, consumer from lanes;
alter table lanes drop constraint lanes_pkey, drop constraint lanes_account_consumer_key;
create index lanes_by_id on lanes (id);
create index lanes_by_name on lanes (account, consumer);

alter table counts set (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
alter table messages set (autovacuum_vacuum_insert_scale_factor = 0.02);
alter table bodies set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
alter table attempts set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);

create view settled as
select m.seq, l.id as lane, case when d.attempts is null then 'delivered' else 'dead' end as state,
    coalesce(d.attempts, a.charged) as attempts, coalesce(d.settled_at, a.at) as settled_at, a.outcome as last_outcome
from messages m
join lanes l on l.account = m.account
left join lateral (select attempts, settled_at from dead where lane = l.id and seq = m.seq limit 1) d on true
left join lateral (
    select charged, at, outcome from attempts
    where seq = m.seq and lane = l.id and state = case when d.attempts is null then 'delivered' else 'dead' end
    order by number + 0 desc limit 1
) a on true
where (d.attempts is not null or a.charged is not null)
    and (select true from pending where lane = l.id and seq = m.seq limit 1) is null;

create view waiting as
select m.seq, p.lane
from messages m
join lanes l on l.account = m.account
cross join lateral (select lane from pending where lane = l.id and seq = m.seq limit 1) p;

create view backlogs as
select l.id as lane,
    (select count(*) from pending where lane = l.id) as pending,
    (select count(*) from dead where lane = l.id) as dead,
    (select m.accepted_at from pending p join messages m on m.seq = p.seq
     where p.lane = l.id order by p.seq limit 1) as oldest_accepted_at
from lanes l;

create table removed (
    source text primary key,
    number bigint not null
);

insert into removed (source, number) values
    ('messages', 0), ('attempts', 0), ('callbacks', 0),
    ('lanes', coalesce((select max(number) from lane_changes where state = 'removed'), 0));
delete from lane_changes where state = 'removed';

drop view lane_facts;
create function lane_facts(of_account text, of_consumer text)
    returns table (url text, revision bigint, in_flight integer, per_second double precision, signing_keys text[])
    language sql stable
    as $$
        select c.url, coalesce(c.revision, 0), m.in_flight, m.per_second,
            array(
                select k.id from credentials k
                where k.kind = 'signing_key' and k.owner = of_account and (k.expires_at is null or k.expires_at > store_now())
                order by k.created_at
            )
        from (select) one
        left join callbacks c on c.account = of_account and of_consumer = ''
        left join limits m on m.account = of_account
    $$;

cluster messages using messages_pkey;
cluster attempts using attempts_pkey;

set local enable_seqscan = on;
set local enable_hashjoin = on;
set local enable_mergejoin = on;

create function day_of(at double precision) returns integer
    language sql immutable parallel safe
    as $$ select floor(at / 86400)::integer $$;

create function oldest_kept(before double precision) returns double precision
    language sql stable parallel safe
    as $$ select case when before > store_now() - 86400 then before else floor(before / 86400) * 86400 end $$;

drop view settled;
drop view waiting;
alter table bodies rename to former_bodies;
alter index bodies_pkey rename to former_bodies_pkey;
alter table attempts rename to former_attempts;
alter index attempts_pkey rename to former_attempts_pkey;
alter index attempts_by_number rename to former_attempts_by_number;
alter sequence attempts_number_seq rename to former_attempts_number_seq;

create table bodies (
    day integer not null default day_of(store_now()),
    seq bigint not null,
    body bytea not null,
    primary key (seq, day)
) partition by list (day);

create sequence attempts_number_seq;
select setval('attempts_number_seq', last_value, is_called) from former_attempts_number_seq;

create table attempts (
    day integer not null default day_of(store_now()),
    seq bigint not null,
    number bigint not null default nextval('attempts_number_seq'),
    lane bigint not null,
    started_at double precision not null,
    url text,
    outcome text not null,
    status integer,
    error_code text,
    fix text,
    phases text not null,
    excerpt text not null,
    at double precision not null,
    state text not null,
    resent boolean not null default false,
    charged integer not null,
    primary key (seq, number, day)
) partition by list (day);

create index attempts_by_number on attempts (number);

create table bodies_default partition of bodies default
    with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
create table attempts_default partition of attempts default
    with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);

create function make_day(of_day integer) returns boolean language plpgsql set lock_timeout = '50ms' as $$
declare
    parent text;
begin
    perform pg_advisory_xact_lock(hashtext('fotahook days'), hashtext(current_schema()));
    foreach parent in array array['bodies', 'attempts'] loop
        if to_regclass(format('%s_d%s', parent, of_day)) is null then
            begin
                execute format(
                    'create table %s_d%s (like %1$s including all)'
                    ' with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02)',
                    parent, of_day
                );
                execute format('alter table %s attach partition %1$s_d%s for values in (%2$s)', parent, of_day);
            exception when check_violation then
                null;
            end;
        end if;
    end loop;
    return true;
exception when lock_not_available then
    return false;
end
$$;

create function drop_day(parent text, of_day integer, before double precision)
    returns table (busy boolean, dropped bigint, bytes bigint)
    language plpgsql set lock_timeout = '50ms'
    as $$
declare
    child text := format('%s_d%s', parent, of_day);
    spare text := format('%s_spare', child);
    grows text := case parent when 'bodies' then 'seq' else 'number' end;
    is_needed text := case parent when 'bodies' then 'seq = any($1)' else 'number > $2 or seq = any($1)' end;
    first bigint;
    final bigint;
    last bigint;
    last_old bigint;
    last_now bigint;
    messages bigint[];
    needed bigint;
begin
    busy := false;
    dropped := 0;
    bytes := 0;
    perform pg_advisory_xact_lock(hashtext('fotahook days'), hashtext(current_schema()));
    if to_regclass(child) is null then
        return next;
        return;
    end if;
    execute format('select min(seq), max(seq), max(%I), count(*) from %I', grows, child) into first, final, last, dropped;
    if parent = 'bodies' then
        messages := array(select seq from pending where seq between first and final);
        needed := cardinality(messages);
    else
        messages := array(select seq from bodies where day = of_day and seq between first and final);
        execute format('select number from %I where at < $1 order by number desc limit 1', child) into last_old using before;
        execute format('select count(*) from %I where number > $1', child) into needed using coalesce(last_old, 0);
        needed := needed + cardinality(messages);
    end if;
    if needed * 2 > dropped then
        dropped := 0;
        return next;
        return;
    end if;
    bytes := pg_total_relation_size(to_regclass(child));
    if needed > 0 then
        execute format(
            'create table %I (like %I including all)'
            ' with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02)', spare, parent
        );
        execute format('insert into %I select * from %I where %s', spare, child, is_needed) using messages, last_old;
        get diagnostics needed = row_count;
        dropped := dropped - needed;
        bytes := bytes - pg_total_relation_size(to_regclass(spare));
    end if;
    execute format('lock table only %I in access exclusive mode', parent);
    execute format('select max(%I) from %I', grows, child) into last_now;
    if last_now > last then
        raise lock_not_available;
    end if;
    execute format('drop table %I', child);
    if needed > 0 then
        execute format('alter table %I rename to %I', spare, child);
        execute format('alter table %I attach partition %I for values in (%s)', parent, child, of_day);
    end if;
    update removed set number = greatest(number, last_old) where source = parent;
    return next;
exception when lock_not_available then
    busy := true;
    dropped := 0;
    bytes := 0;
    return next;
end
$$;

select make_day(day) from (
    select distinct day_of(m.accepted_at) as day from messages m where exists (
        select from former_bodies where seq = m.seq
    ) or exists (
        select from former_attempts where seq = m.seq
    ) union select generate_series(day_of(store_now()), day_of(store_now()) + 7)
) days order by day;

insert into bodies (day, seq, body)
select day_of(m.accepted_at), b.seq, b.body from former_bodies b join messages m using (seq) order by b.seq;

insert into attempts (
    day, seq, number, lane, started_at, url, outcome, status, error_code, fix, phases, excerpt, at, state, resent, charged
)
select day_of(m.accepted_at), a.seq, a.number, a.lane, a.started_at, a.url, a.outcome, a.status, a.error_code, a.fix,
    a.phases, a.excerpt, a.at, a.state, a.resent, a.charged
from former_attempts a join messages m using (seq) order by a.seq, a.number;

drop table former_bodies;
drop table former_attempts;

create view settled as
select m.seq, l.id as lane, case when d.attempts is null then 'delivered' else 'dead' end as state,
    coalesce(d.attempts, a.charged) as attempts, coalesce(d.settled_at, a.at) as settled_at, a.outcome as last_outcome
from messages m
join lanes l on l.account = m.account
left join lateral (select attempts, settled_at from dead where lane = l.id and seq = m.seq limit 1) d on true
left join lateral (
    select charged, at, outcome from attempts
    where day = day_of(m.accepted_at) and seq = m.seq and lane = l.id
        and state = case when d.attempts is null then 'delivered' else 'dead' end
    order by number + 0 desc limit 1
) a on true
where (d.attempts is not null or a.charged is not null)
    and (select true from pending where lane = l.id and seq = m.seq limit 1) is null;

create view waiting as
select m.seq, day_of(m.accepted_at) as day, p.lane
from messages m
join lanes l on l.account = m.account
cross join lateral (select lane from pending where lane = l.id and seq = m.seq limit 1) p;

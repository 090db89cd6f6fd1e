-- A PostgreSQL store of schema 1.
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
create table fotahook_migrations (number integer primary key);
insert into fotahook_migrations (number) select generate_series(1, 1);
insert into attempts (seq,number,lane,started_at,url,outcome,status,error_code,fix,phases,excerpt) overriding system value values
    ('1', '1', '2', '1790000001', 'https://receiver.example/callbacks', 'failed', '503', 'timeout_connect', NULL, '{"connect":0.2,"total":1.5}', 'ok'),
    ('1', '2', '2', '1790000001', 'https://receiver.example/callbacks', 'delivered', '200', NULL, NULL, '{"connect":0.2,"total":1.5}', 'ok'),
    ('2', '3', '2', '1790000001', 'https://receiver.example/callbacks', 'failed', '503', 'response_4xx', NULL, '{"connect":0.2,"total":1.5}', 'ok'),
    ('3', '4', '2', '1790000001', 'https://receiver.example/callbacks', 'delivered', '200', NULL, NULL, '{"connect":0.2,"total":1.5}', 'ok'),
    ('4', '5', '2', '1790000001', 'https://receiver.example/callbacks', 'delivered', '200', NULL, NULL, '{"connect":0.2,"total":1.5}', 'ok'),
    ('11', '6', '3', '1790000001', 'https://receiver.example/callbacks', 'failed', '503', 'timeout_connect', NULL, '{"connect":0.2,"total":1.5}', 'ok');
insert into callback_history (account,revision,url,actor,at) overriding system value values
    ('moved', '1', 'https://receiver.example/moved', 'test', '1796080232.148306'),
    ('open', '1', 'https://receiver.example/open', 'test', '1796080232.169003'),
    ('trouble', '1', 'https://receiver.example/trouble', 'test', '1796080232.177601'),
    ('moved', '2', 'https://other.example/moved', 'test', '1796080232.185355'),
    ('moved', '3', NULL, 'test', '1796080232.18763');
insert into callbacks (account,url,revision,registered_at) overriding system value values
    ('open', 'https://receiver.example/open', '1', '1796080232.169003'),
    ('trouble', 'https://receiver.example/trouble', '1', '1796080232.177601');
insert into credentials (kind,id,owner,secret_hash,accounts,scopes,created_at,expires_at) overriding system value values
    ('client', 'c', '', E'\\x78', NULL, '{publish}', '0', NULL);
insert into deliveries (seq,lane,place,key,state,due,born,attempts,strikes,settled_at,last_outcome) overriding system value values
    ('1', '2', '1', NULL, 'delivered', '1796080232.230105', '1796080232.193892', '1', '0', '1796080232.230105', 'delivered'),
    ('2', '2', '2', 'd', 'dead', '1796080232.245213', '1796080232.233017', '8', '0', '1796080232.245213', 'failed'),
    ('4', '2', '4', NULL, 'delivered', '1796080232.269935', '1796080232.265546', '1', '0', '1796080232.269935', 'delivered'),
    ('3', '2', '5', NULL, 'ready', '1796080232.273397', '1796080232.273397', '0', '0', NULL, 'delivered'),
    ('6', '2', '6', 'chain', 'ready', '1796080232.281483', '1796080232.281483', '0', '0', NULL, NULL),
    ('7', '2', '7', 'chain', 'behind', '1796080232.281483', '1796080232.281483', '0', '0', NULL, NULL),
    ('8', '2', '8', 'chain', 'behind', '1796080232.281483', '1796080232.281483', '0', '0', NULL, NULL),
    ('9', '2', '9', NULL, 'ready', '1796080232.281483', '1796080232.281483', '0', '0', NULL, NULL),
    ('10', '1', '10', NULL, 'ready', '1796080232.28542', '1796080232.18763', '0', '0', NULL, NULL),
    ('11', '3', '11', NULL, 'ready', '1796080237.310489', '1796080232.289143', '0', '1', NULL, 'failed'),
    ('12', '4', '12', NULL, 'ready', '1796080232.325608', '1796080232.325608', '0', '0', NULL, NULL),
    ('12', '5', '12', NULL, 'ready', '1796080232.325608', '1796080232.325608', '0', '0', NULL, NULL);
insert into lanes ("id","account","consumer","held","paused","token","due","wait_until","leased_until","stopped_at","stopped_for","failures","window","refused","reason") overriding system value values
    ('1', 'moved', '', 'true', 'false', '0', '1796080232.28542', '0', '0', '1796080232.18763', '0', '0', '1', '0', NULL),
    ('2', 'open', '', 'false', 'false', '5', '1796080232.273397', '0', '0', NULL, '0', '0', '1', '0', NULL),
    ('3', 'trouble', '', 'false', 'false', '1', '1796080237.310489', '1796080237.310489', '0', NULL, '0', '1', '1', '0', 'timeout_connect'),
    ('5', 'inbox', 'handlers', 'false', 'false', '0', '1796080232.325608', '0', '0', NULL, '0', '0', '1', '0', NULL),
    ('4', 'inbox', 'billing', 'false', 'false', '0', '1796080232.325608', '0', '0', NULL, '0', '0', '1', '0', NULL);
insert into limits (account,in_flight,per_second) overriding system value values
    ('open', '3', NULL);
insert into messages (seq,id,account,type,ordering_key,idempotency_key,body,size,sha256,accepted_at,duplicates) overriding system value values
    ('1', '01a0c450-6c00-7000-a294-ce06b3f85524', 'open', 't', NULL, 'key-1', E'\\x7b226e223a2264656c697665726564227d', '17', E'\\x07004fe703112f6d417a0f9b97ebc4d879e00ea1aed5d5aaa4c49769223c1301', '1796080232.193892', '0'),
    ('2', '01a0c450-6c00-7001-8a91-a9d008bead28', 'open', NULL, 'd', NULL, E'\\x7b226e223a2264656164227d', '12', E'\\xe0f0fe3e32b0ebfcb6d3ff224066ad46bd53aa8a13b9f6cbf3a6f31a03097964', '1796080232.233017', '0'),
    ('3', '01a0c450-6c00-7002-aab7-4115c6e95ef9', 'open', NULL, NULL, NULL, E'\\x7b226e223a22726564656c697665726564227d', '19', E'\\xfe514b55fe55ca6a43ad4c52815c3339c04309a3953abf90ff7824d2af21bfdb', '1796080232.2495', '0'),
    ('6', '01a0c450-6c00-7004-808d-cc491faf6963', 'open', NULL, 'chain', NULL, E'\\x7b226e223a22636861696e2031227d', '15', E'\\xd2c1eca1932edfeb8d1373f5d3010f9b41e93e75b877a984ceee84e2866409d5', '1796080232.281483', '0'),
    ('7', '01a0c450-6c00-7005-96b7-5a705cf04bc4', 'open', NULL, 'chain', NULL, E'\\x7b226e223a22636861696e2032227d', '15', E'\\x09bb375366154868584d2dde6f677fae0dace7ea7d54807f7ba2dd999cb72117', '1796080232.281483', '0'),
    ('8', '01a0c450-6c00-7006-b709-77aa9d180c76', 'open', NULL, 'chain', NULL, E'\\x7b226e223a22636861696e2033227d', '15', E'\\x89ed96adb541c55db484c25429ba0f2aa57d1c8f0c48e92fd08f35d03b019e85', '1796080232.281483', '0'),
    ('9', '01a0c450-6c00-7007-bb97-6df98d33a484', 'open', NULL, NULL, NULL, E'\\x7b226e223a2266726565227d', '12', E'\\xd1a31d0517812c919fed86145da123d8074418d331e8d49cf1bd02ff1c73bcdd', '1796080232.281483', '0'),
    ('10', '01a0c450-6c00-7008-988c-3ab717b5b868', 'moved', NULL, NULL, NULL, E'\\x7b226e223a2268656c64227d', '12', E'\\x3549dee831fa96299b63c3a9c7735c64cb0695e41c3c5f4a865be95d9b981b52', '1796080232.28542', '0'),
    ('11', '01a0c450-6c00-7009-8c2e-1c53c9b0adf6', 'trouble', NULL, NULL, NULL, E'\\x7b226e223a227761697473227d', '13', E'\\xe93a5ec3e385f8a444cf05e1b6d0b0feaf5a3f3891f01c8ffd1b7cdacc3d9667', '1796080232.289143', '0'),
    ('12', '01a0c450-6c00-700a-9c44-d95ed6aa8542', 'inbox', NULL, NULL, '621021575dcda0a5e8d68d0df2d0a7448cfe1e04ed971a84acbc050b1809c077', E'\\x7b226e223a226b6e6f776e206279206279746573227d', '22', E'\\x621021575dcda0a5e8d68d0df2d0a7448cfe1e04ed971a84acbc050b1809c077', '1796080232.325608', '0'),
    ('4', '01a0c450-6c00-7003-aef0-e370c39aff73', 'open', NULL, NULL, 'key-2', NULL, '14', E'\\xb399ab845f797d020d9aea8191711d05338dd57873519ccf2c3dd3b42ca5e643', '1796080232.265546', '0');
update messages set idempotency_key = 'body:' || encode(sha256, 'hex') where account = 'inbox';
select setval('places', 12);
select setval('lanes_id_seq', 5);
select setval('attempts_number_seq', 6);

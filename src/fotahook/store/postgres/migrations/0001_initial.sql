-- Times are Unix seconds. A lane's `due` of null means never. Names are compared byte by byte, whatever the database's
-- own collation.

-- The one clock that is ever compared: the server's, at the beginning of the transaction. Stable, so that indexes are used.
create function store_now() returns double precision
    language sql stable parallel safe
    as $$ select extract(epoch from now())::double precision $$;

create table callbacks (
    account text collate "C" primary key,
    url text not null,
    revision bigint not null,
    registered_at double precision not null
);

-- Who changed what: url is null where the callback was deregistered.
create table callback_history (
    account text collate "C" not null,
    revision bigint not null,
    url text,
    actor text not null,
    at double precision not null,
    primary key (account, revision)
);

-- Numbers messages as they are accepted, and the places of redelivered ones, see deliveries. It is read while the lanes
-- are locked, so within a lane its order is the order of the commits.
create sequence places;

-- A body is removed by retention once every delivery is settled; the row stays, so that dedupe never weakens.
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
    -- The lane's own clock stands still while it is held or paused: `stopped_for` seconds so far, and since `stopped_at`.
    stopped_at double precision,
    stopped_for double precision not null default 0,
    failures integer not null default 0,
    "window" integer not null default 1,
    refused integer not null default 0,
    reason text,
    unique (account, consumer)
);

create index lanes_by_next on lanes (next) where not held and not paused and due is not null;

-- What an operator set for an account; null means the service's own setting.
create table limits (
    account text collate "C" primary key,
    in_flight integer,
    per_second double precision
);

-- Of the deliveries of one key only the first is ready; those behind it are promoted one by one, by their place: the
-- message's seq, or a later number of the same sequence once it was redelivered. `born`: when it was accepted, on the
-- lane's own clock. Rows are written under the lock of their lane only, which spares them foreign keys.
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

-- What is not delivered of each lane.
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

-- Redeliveries of many messages, done in small steps: those of the account up to seq `last`, from behind seq `done`.
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

-- What a lease tells beside the lane itself.
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

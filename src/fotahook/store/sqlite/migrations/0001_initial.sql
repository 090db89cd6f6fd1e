-- Times are Unix seconds. A lane's or delivery's `due` of null means never.

create table callbacks (
    account text primary key,
    url text not null,
    revision integer not null,
    registered_at real not null
) strict, without rowid;

-- Who changed what: url is null where the callback was deregistered.
create table callback_history (
    account text not null,
    revision integer not null,
    url text,
    actor text not null,
    at real not null,
    primary key (account, revision)
) strict, without rowid;

-- A body is removed by retention once every delivery is settled; the row stays, so that dedupe never weakens.
-- autoincrement: its sequence also numbers the places of redelivered messages, see deliveries.
create table messages (
    seq integer primary key autoincrement,
    id text not null unique,
    account text not null,
    type text,
    ordering_key text,
    idempotency_key text,
    body blob,
    size integer not null,
    sha256 blob not null,
    accepted_at real not null,
    duplicates integer not null default 0
) strict;

create unique index messages_by_idempotency_key on messages (account, idempotency_key)
    where idempotency_key is not null;
create index messages_by_account on messages (account, seq);
create index messages_with_body on messages (seq) where body is not null;

create table lanes (
    id integer primary key,
    account text not null,
    consumer text not null,
    held integer not null,
    paused integer not null default 0,
    token integer not null default 0,
    due real,
    wait_until real not null default 0,
    leased_until real not null default 0,
    next real generated always as (max(due, wait_until, leased_until)) virtual,
    -- The lane's own clock stands still while it is held or paused: `stopped_for` seconds so far, and since `stopped_at`.
    stopped_at real,
    stopped_for real not null default 0,
    failures integer not null default 0,
    window integer not null default 1,
    refused integer not null default 0,
    reason text,
    unique (account, consumer)
) strict;

create index lanes_by_next on lanes (next) where held = 0 and paused = 0 and due is not null;

-- What an operator set for an account; null means the service's own setting.
create table limits (
    account text primary key,
    in_flight integer,
    per_second real
) strict, without rowid;

-- Of the deliveries of one key only the first is ready; those behind it are promoted one by one, by their place: the
-- message's seq, or a later number of the same sequence once it was redelivered. `born`: when it was accepted, on the
-- lane's own clock.
create table deliveries (
    lane integer not null references lanes,
    seq integer not null references messages,
    place integer not null,
    key text,
    state text not null check (state in ('ready', 'behind', 'delivered', 'dead')),
    due real not null,
    born real not null,
    attempts integer not null default 0,
    strikes integer not null default 0,
    settled_at real,
    last_outcome text,
    primary key (lane, seq)
) strict, without rowid;

create index deliveries_ready on deliveries (lane, due, place) where state = 'ready';
create index deliveries_by_key on deliveries (lane, key, place) where key is not null and state in ('ready', 'behind');
create index deliveries_by_message on deliveries (seq, state);
create index deliveries_pending on deliveries (lane, seq, state) where state in ('ready', 'behind');
create index deliveries_dead on deliveries (lane, seq) where state = 'dead';

-- What is not delivered of each lane. The indexes are named, or SQLite would go through all that was ever delivered.
create view backlogs as
select l.id as lane,
    (select count(*) from deliveries indexed by deliveries_pending
     where lane = l.id and state in ('ready', 'behind')) as pending,
    (select count(*) from deliveries indexed by deliveries_dead where lane = l.id and state = 'dead') as dead,
    (select m.accepted_at from deliveries d indexed by deliveries_pending join messages m on m.seq = d.seq
     where d.lane = l.id and d.state in ('ready', 'behind') order by d.seq limit 1) as oldest_accepted_at
from lanes l;

create table attempts (
    seq integer not null references messages,
    lane integer not null references lanes,
    started_at real not null,
    url text,
    outcome text not null,
    status integer,
    error_code text,
    fix text,
    phases text not null,
    excerpt text not null
) strict;

create index attempts_by_message on attempts (seq);

-- Redeliveries of many messages, done in small steps: those of the account up to seq `last`, from behind seq `done`.
create table redeliveries (
    id integer primary key,
    account text not null,
    state text not null,
    since real not null,
    until real not null,
    done integer not null default 0,
    last integer not null
) strict;

create table credentials (
    kind text not null,
    id text not null,
    owner text not null,
    secret_hash blob not null,
    accounts text,
    scopes text not null,
    created_at real not null,
    expires_at real,
    primary key (kind, id)
) strict, without rowid;

create index credentials_by_owner on credentials (kind, owner, created_at);

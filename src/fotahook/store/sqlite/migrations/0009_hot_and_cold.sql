-- What is pending is apart from what is settled, and bodies are apart from what is known of their messages. So the pages
-- that are written for each message stay few, however much history there is, and removed bodies leave whole pages.

create table bodies (
    seq integer primary key,
    body blob not null
) strict;

insert into bodies (seq, body) select seq, body from messages where body is not null order by seq;

-- Deliveries until they are settled. Of those of one key only the first is ready; those behind it are promoted one by one,
-- by their place: the message's seq, or a later number once it was redelivered (see places). `born`: when it was accepted,
-- on the lane's own clock.
create table pending (
    lane integer not null,
    seq integer not null,
    place integer not null,
    key text,
    ready integer not null,
    due real not null,
    born real not null,
    attempts integer not null default 0,
    strikes integer not null default 0,
    primary key (lane, seq)
) strict, without rowid;

insert into pending (lane, seq, place, key, ready, due, born, attempts, strikes)
select lane, seq, place, key, state = 'ready', due, born, attempts, strikes from deliveries
where state in ('ready', 'behind');

create index pending_ready on pending (lane, due, place) where ready = 1;
create index pending_by_key on pending (lane, key, place) where key is not null;

create table dead (
    lane integer not null,
    seq integer not null,
    attempts integer not null,
    settled_at real not null,
    primary key (lane, seq)
) strict, without rowid;

insert into dead (lane, seq, attempts, settled_at)
select lane, seq, attempts, coalesce(settled_at, due) from deliveries where state = 'dead';

-- History in the order in which it was written. The last attempt of a delivery tells how it ended. `charged`: how many
-- attempts were charged to the message by then.
create table history (
    number integer primary key,
    seq integer not null,
    lane integer not null,
    started_at real not null,
    url text,
    outcome text not null,
    status integer,
    error_code text,
    fix text,
    phases text not null,
    excerpt text not null,
    resent integer not null,
    at real not null,
    state text not null,
    charged integer not null
) strict;

insert into history
select a.number, a.seq, a.lane, a.started_at, a.url, a.outcome, a.status, a.error_code, a.fix, a.phases, a.excerpt, a.resent,
    coalesce(a.at, a.started_at),
    coalesce(a.state, case a.outcome when 'delivered' then 'delivered' else 'pending' end),
    coalesce((select d.attempts from deliveries d where d.lane = a.lane and d.seq = a.seq), 1)
from attempts a order by a.number;

drop view backlogs;
drop table attempts;
drop table deliveries;
alter table history rename to attempts;
create index attempts_by_message on attempts (seq);

-- The newest message is never removed, so that no number comes again.
create table known_messages (
    seq integer primary key,
    id text not null,
    account text not null,
    type text,
    ordering_key text,
    idempotency_key text,
    key_hash integer,
    size integer not null,
    sha256 blob not null,
    accepted_at real not null,
    duplicates integer not null default 0
) strict;

insert into known_messages
select seq, id, account, type, ordering_key, idempotency_key, key_hash, size, sha256, accepted_at, duplicates
from messages order by seq;

-- The last place that a redelivered message took: numbers of messages go on after it.
create table places (
    last integer not null
) strict;

insert into places (last) select coalesce((select seq from sqlite_sequence where name = 'messages'), 0);

drop table messages;
alter table known_messages rename to messages;
create unique index messages_by_id on messages (id);
create index messages_by_key_hash on messages (key_hash) where key_hash is not null;

-- The messages of an account, for every 256 numbers: the index grows at its end, and not at a place of each account.
create index messages_by_account on messages (seq >> 8, account);

-- How each settled delivery ended.
create view settled as
select m.seq, l.id as lane, case when d.seq is null then 'delivered' else 'dead' end as state,
    coalesce(d.attempts, a.charged) as attempts, coalesce(d.settled_at, a.at) as settled_at, a.outcome as last_outcome
from messages m
cross join lanes l on l.account = m.account
left join dead d on d.lane = l.id and d.seq = m.seq
left join attempts a on a.number = (
    select max(number) from attempts
    where seq = m.seq and lane = l.id and state = case when d.seq is null then 'delivered' else 'dead' end
)
where (d.seq is not null or a.number is not null)
    and not exists (select 1 from pending p where p.lane = l.id and p.seq = m.seq);

-- The lanes in which a message is pending.
create view waiting as
select m.seq, p.lane
from messages m cross join lanes l on l.account = m.account cross join pending p on p.lane = l.id and p.seq = m.seq;

-- What is not delivered of each lane.
create view backlogs as
select l.id as lane,
    (select count(*) from pending where lane = l.id) as pending,
    (select count(*) from dead where lane = l.id) as dead,
    (select m.accepted_at from pending p join messages m on m.seq = p.seq
     where p.lane = l.id order by p.seq limit 1) as oldest_accepted_at
from lanes l;

-- The last number of each source of events that retention removed.
create table removed (
    source text primary key,
    number integer not null
) strict, without rowid;

insert into removed (source, number) values ('messages', 0), ('attempts', 0), ('callbacks', 0), ('lanes', 0);
update removed set number = coalesce((select max(number) from lane_changes where state = 'removed'), 0)
where source = 'lanes';
delete from lane_changes where state = 'removed';

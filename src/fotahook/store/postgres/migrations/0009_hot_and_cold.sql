-- What is pending is apart from what is settled, and bodies are apart from what is known of their messages. So what is
-- leased and fetched stays small, however much history there is.

create table bodies (
    seq bigint primary key,
    body bytea not null
);

insert into bodies (seq, body) select seq, body from messages where body is not null order by seq;

-- Deliveries until they are settled. Of those of one key only the first is ready; those behind it are promoted one by one,
-- by their place: the message's seq, or a later number of the same sequence once it was redelivered. `born`: when it was
-- accepted, on the lane's own clock. Rows are written under the lock of their lane only.
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
    -- Whether the transaction of its handlers has committed.
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

-- The last settling attempt of a delivery tells how it ended. `charged`: how many attempts were charged to the message.
alter table attempts add column charged integer;
update attempts a set at = coalesce(a.at, a.started_at),
    state = coalesce(a.state, case a.outcome when 'delivered' then 'delivered' else 'pending' end),
    charged = coalesce((select d.attempts from deliveries d where d.lane = a.lane and d.seq = a.seq), 1);
alter table attempts alter column at set not null, alter column state set not null, alter column charged set not null;

drop view backlogs;
drop table deliveries;
drop index messages_with_body;
drop index messages_by_account;
-- The sum keeps the planner from finding a single message in it by its number.
create index messages_by_account on messages (account, (seq + 0));
alter table messages drop column body;

-- No ready delivery of a lane is due earlier than `since`. So the fetch begins behind what was settled, even where another
-- transaction's snapshot keeps the entries of settled ones in the index.
alter table lanes add column since double precision not null default 0;
alter table lanes set (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);

-- A unique index would go through all old versions of a lane at each new one; the names alone are unique.
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

-- How each settled delivery ended. A lateral with a limit reads one row by its key, whatever the planner believes of the
-- tables; and `number + 0` makes it find a message's attempts by the message.
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

-- The lanes in which a message is pending.
create view waiting as
select m.seq, p.lane
from messages m
join lanes l on l.account = m.account
cross join lateral (select lane from pending where lane = l.id and seq = m.seq limit 1) p;

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
    number bigint not null
);

insert into removed (source, number) values
    ('messages', 0), ('attempts', 0), ('callbacks', 0),
    ('lanes', coalesce((select max(number) from lane_changes where state = 'removed'), 0));
delete from lane_changes where state = 'removed';

-- What a lease tells beside the lane itself.
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

-- Rows in the order of their messages, and no room for the bodies that are gone.
cluster messages using messages_pkey;
cluster attempts using attempts_pkey;

-- Every statement of the SQLite store, by name. Parameters are named; :now is the store's clock.

-- name: take_room
-- Room that the same transaction gives back: a write that a full or read-only store refuses, as it would a message.
insert into credentials (kind, id, owner, secret_hash, scopes, created_at)
values ('probe', :id, '', zeroblob(65536), '', 0);

-- name: give_room_back
delete from credentials where kind = 'probe' and id = :id;

-- name: write_nothing
-- Changes nothing, and fails if the store cannot be written.
update lanes set token = token where false;

-- name: callback
select account, url, revision, registered_at from callbacks where account = :account;

-- name: put_callback
insert into callbacks (account, url, revision, registered_at) values (:account, :url, :revision, :now)
on conflict (account) do update set url = :url, revision = :revision, registered_at = :now
returning account, url, revision, registered_at;

-- name: drop_callback
delete from callbacks where account = :account returning account;

-- name: add_history
insert into callback_history (account, revision, url, actor, at)
select :account, coalesce(max(revision), 0) + 1, :url, :actor, :now
from callback_history where account = :account
returning revision;

-- name: open_callback_lane
-- The health of the old endpoint says nothing about the new one.
update lanes set
    held = 0, wait_until = 0, failures = 0, window = 4, refused = 0, reason = null,
    succeeded = 0, failed = 0, latency = 0,
    stopped_for = stopped_for + case when paused = 0 then :now - coalesce(stopped_at, :now) else 0 end,
    stopped_at = case when paused = 0 then null else stopped_at end
where account = :account and consumer = '';

-- name: hold_callback_lane
update lanes set held = 1, stopped_at = coalesce(stopped_at, :now) where account = :account and consumer = '';

-- name: known_messages
-- Messages that may have the idempotency keys, or the bytes, with these hashes. Rows: hash.
select account, idempotency_key, id, sha256, accepted_at
from messages indexed by messages_by_key_hash where key_hash in (values {rows});

-- name: forget_keys
update messages set idempotency_key = null, key_hash = null where id in (select value from json_each(:ids));

-- name: add_messages
-- In the given order, with consecutive numbers.
insert into messages (id, account, type, ordering_key, idempotency_key, key_hash, body, size, sha256, accepted_at)
select * from (values {rows}) where column1 is not null;

-- name: count_duplicates
update messages set duplicates = duplicates + given.times
from (select value ->> 0 as id, value ->> 1 as times from json_each(:repeated)) given
where messages.id = given.id;

-- name: find_lanes
select l.id, l.account, l.consumer, l.token, l.due is not null and l.due <= :now as is_due,
    coalesce(l.stopped_at, :now) - l.stopped_for as clock,
    case when l.held or l.paused then 'other' when l.leased_until > :now then 'leased'
        when l.due is null and l.wait_until <= :now then 'idle' else 'other' end as use
from json_each(:lanes) given
cross join lanes l on l.account = given.value ->> 0 and l.consumer = given.value ->> 1;

-- name: add_lanes
-- A lane to a callback starts held, and the register call opens it. Other lanes have a destination from the start.
insert into lanes (account, consumer, held, stopped_at, window)
select value ->> 0, value ->> 1, value ->> 1 = '', case when value ->> 1 = '' then :now end, 4
from json_each(:lanes) where true
on conflict (account, consumer) do nothing;

-- name: add_deliveries
-- Several of one key are promoted afterwards. Rows: lane, message, ordering key, whether it is the only one of that key
-- here, due, born.
insert into deliveries (lane, seq, place, key, state, due, born)
select column1, column2, column2, column3,
    case when column3 is null or (column4 and not exists (
        select true from deliveries d indexed by deliveries_by_key
        where d.lane = column1 and d.key = column3 and d.state in ('ready', 'behind')
    )) then 'ready' else 'behind' end, column5, column6
from (values {rows}) where column1 is not null;

-- name: make_due
update lanes set due = (select min(due) from deliveries where lane = lanes.id and state = 'ready')
where id in (select value from json_each(:lanes));

-- name: take_lanes
-- Idle lanes with new deliveries.
update lanes set token = token + 1, leased_until = :now + :seconds, due = :now
where id in (select value from json_each(:lanes));

-- name: recompute_due
update lanes set due = (select min(due) from deliveries where lane = lanes.id and state = 'ready')
where account = :account and consumer = :consumer;

-- name: lease
update lanes set token = token + 1, leased_until = :now + :seconds
where id in (
    select id from lanes
    where held = 0 and paused = 0 and due is not null and next <= :now
    order by next limit :limit
)
returning id;

-- name: leased_lanes
select l.id as lane, l.token, l.account, l.consumer, l.held = 0 and l.paused = 0 as open, c.url,
    coalesce(c.revision, 0) as revision, l.failures, l.window, l.refused, l.reason,
    l.succeeded, l.failed, l.latency, :now as read_at,
    m.in_flight, m.per_second,
    (select group_concat(id, ' ') from (
        select id from credentials
        where kind = 'signing_key' and owner = l.account and (expires_at is null or expires_at > :now)
        order by created_at
    )) as signing_keys
from json_each(:lanes) given
cross join lanes l on l.id = given.value
left join callbacks c on c.account = l.account and l.consumer = ''
left join limits m on m.account = l.account;

-- name: fetch
-- One JSON text, bodies in hex: between two rows the reading thread would wait for the event loop. SQLite writes numbers
-- into JSON with 15 digits, and a time needs 17.
select json_group_array(json_array(
    seq, id, type, ordering_key, hex(body), json(printf('%!.17g', accepted_at)), attempts, strikes, age, followed, note
)) as deliveries
from (
    select d.seq, m.id, m.type, m.ordering_key, m.body, m.accepted_at, d.attempts, d.strikes,
        coalesce(l.stopped_at, :now) - l.stopped_for - d.born as age,
        exists (
            select 1 from deliveries b indexed by deliveries_by_key
            where b.lane = d.lane and b.key = d.key and b.state in ('ready', 'behind') and b.seq <> d.seq
        ) as followed,
        (select note from notes where seq = d.seq) as note
    from (
        select *, sum(size) over (order by due, place rows unbounded preceding) - size as size_before from (
            select d.*, m.size from deliveries d join messages m on m.seq = d.seq
            where d.lane = :lane and d.state = 'ready' and d.due <= :now
                and d.seq not in (select value from json_each(:without))
            order by d.due, d.place limit :limit
        )
    ) d
    cross join messages m on m.seq = d.seq
    cross join lanes l on l.id = d.lane
    where d.size_before <= :max_bytes
);

-- name: fence
select l.id as lane, coalesce(c.revision, 0) as revision
from json_each(:leases) given
cross join lanes l on l.id = given.value ->> 0 and l.token = given.value ->> 1 and l.leased_until > 0
left join callbacks c on c.account = l.account and l.consumer = '';

-- name: settle_deliveries
-- Rows: lane, message, state, due, attempts, strikes, outcome of the last attempt, when it was settled.
update deliveries set
    state = given.column3, due = given.column4, attempts = given.column5, strikes = given.column6,
    last_outcome = given.column7, settled_at = given.column8
from (values {rows}) given
where deliveries.lane = given.column1 and deliveries.seq = given.column2 and deliveries.state = 'ready';

-- name: promote
-- The first pending delivery of each of these keys. Rows: lane, ordering key.
update deliveries set state = 'ready' where state = 'behind' and (lane, seq) in (
    select column1, (
        select d.seq from deliveries d
        where d.lane = column1 and d.key = column2 and d.state in ('ready', 'behind') order by d.place limit 1
    )
    from (values {rows})
);

-- name: add_attempts
insert into attempts (seq, lane, started_at, url, outcome, status, error_code, fix, phases, excerpt, resent, at, state)
select * from (values {rows}) where column1 is not null;

-- name: count_accepted
-- :counts is JSON, a lane and its new messages each.
insert into counts (minute, lane, accepted)
select cast(:now / 60 as integer), value ->> 0, value ->> 1 from json_each(:counts) where true
on conflict (minute, lane) do update set accepted = accepted + excluded.accepted;

-- name: count_settled
-- :counts is JSON, [lane, delivered, failed, dead] for each lane.
insert into counts (minute, lane, delivered, failed, dead)
select cast(:now / 60 as integer), value ->> 0, value ->> 1, value ->> 2, value ->> 3
from json_each(:counts) where true
on conflict (minute, lane) do update set
    delivered = delivered + excluded.delivered, failed = failed + excluded.failed, dead = dead + excluded.dead;

-- name: keep_lanes
update lanes set
    leased_until = case when given.keep > 0 then :now + given.keep else 0 end,
    due = (select min(due) from deliveries where lane = lanes.id and state = 'ready')
from (select value ->> 0 as lane, value ->> 1 as keep from json_each(:lanes)) given
where lanes.id = given.lane
returning id, not held and not paused and due is not null and max(due, wait_until) <= :now as is_due;

-- name: judge_lanes
update lanes set
    wait_until = case when given.wait > 0 then :now + given.wait else wait_until end,
    stopped_at = case when given.pause then coalesce(stopped_at, :now) else stopped_at end,
    paused = paused or given.pause,
    failures = given.failures, window = given.window, refused = given.refused, reason = given.reason,
    succeeded = given.succeeded, failed = given.failed, latency = given.latency
from (
    select value ->> 0 as lane, value ->> 1 as wait, value ->> 2 as pause, value ->> 3 as failures,
        value ->> 4 as window, value ->> 5 as refused, value ->> 6 as reason,
        value ->> 7 as succeeded, value ->> 8 as failed, value ->> 9 as latency
    from json_each(:verdicts)
) given
where lanes.id = given.lane;

-- name: forget_leases
update lanes set leased_until = 0 where leased_until > 0;

-- name: due_in
select min(next) - :now as due_in from lanes where held = 0 and paused = 0 and due is not null;

-- name: message
select seq, id, account, type, ordering_key, idempotency_key, body, size, sha256, accepted_at, duplicates
from messages where id = :id;

-- name: delivery_statuses
-- :seqs is JSON, the messages.
select d.seq, l.consumer, d.state, d.attempts, d.due, d.settled_at, d.last_outcome,
    coalesce(l.stopped_at, :now) - l.stopped_for - d.born as age, l.stopped_at is not null as stopped,
    case when d.state = 'behind' then (
        select m.id from deliveries head join messages m on m.seq = head.seq
        where head.lane = d.lane and head.key = d.key and head.state in ('ready', 'behind') order by head.place limit 1
    ) end as behind
from json_each(:seqs) given
cross join deliveries d on d.seq = given.value
join lanes l on l.id = d.lane
order by l.consumer;

-- name: attempts
select a.started_at, a.url, a.outcome, a.status, a.error_code, a.fix, a.phases, a.excerpt, a.resent
from attempts a join messages m on m.seq = a.seq where m.id = :id order by a.number;

-- name: recent_attempts
select m.id as message, m.accepted_at, a.started_at, a.url, a.outcome, a.status, a.error_code, a.fix, a.phases, a.excerpt,
    a.resent, (select count(*) from attempts b where b.seq = a.seq and +b.number <= a.number) as number
from attempts a join messages m on m.seq = a.seq
order by a.number desc limit :limit;

-- name: account_attempts
-- Of the newest messages, and of the oldest that still wait: those are the ones that a failing endpoint is tried with.
select m.id as message, m.accepted_at, a.started_at, a.url, a.outcome, a.status, a.error_code, a.fix, a.phases, a.excerpt,
    a.resent, (select count(*) from attempts b where b.seq = a.seq and +b.number <= a.number) as number
from attempts a join messages m on m.seq = a.seq
where a.seq in (
    select seq from (select seq from messages where account = :account order by seq desc limit :messages) newest
    union all
    select seq from (
        select d.seq from lanes l join deliveries d indexed by deliveries_pending on d.lane = l.id
        where l.account = :account and d.state in ('ready', 'behind') order by d.seq limit :messages
    ) oldest
)
order by a.number desc limit :limit;

-- name: lanes
select l.consumer, l.held, l.paused, l.wait_until, l.wait_until > :now as waiting, l.failures, l.window, l.refused, l.reason,
    l.succeeded, l.failed, l.latency, b.pending, b.dead, b.oldest_accepted_at
from lanes l join backlogs b on b.lane = l.id where l.account = :account order by l.consumer;

-- name: accounts
select l.account, c.url, c.revision, c.registered_at, m.in_flight, m.per_second,
    l.consumer, l.held, l.paused, l.wait_until, l.wait_until > :now as waiting, l.failures, l.window, l.refused, l.reason,
    l.succeeded, l.failed, l.latency, b.pending, b.dead, b.oldest_accepted_at
from lanes l
join backlogs b on b.lane = l.id
left join callbacks c on c.account = l.account
left join limits m on m.account = l.account
where l.consumer = '' and l.account > :after and (:among is null or l.account in (select value from json_each(:among)))
    and case coalesce(:state, '')
    when '' then true
    when 'trouble' then l.failures > 0 or l.reason is not null or (l.held and l.due is not null)
    when 'paused' then l.paused
    when 'held' then l.held and not l.paused
    when 'waiting' then l.wait_until > :now and not l.held and not l.paused
    else l.wait_until <= :now and not l.held and not l.paused
end
order by l.account limit :limit;

-- name: state_counts
select count(*) filter (where not l.held and not l.paused and l.wait_until <= :now) as open,
    count(*) filter (where not l.held and not l.paused and l.wait_until > :now) as waiting,
    count(*) filter (where l.held and not l.paused) as held,
    count(*) filter (where l.paused) as paused,
    count(*) filter (where l.failures > 0 or l.reason is not null or (l.held and l.due is not null)) as trouble
from lanes l where l.consumer = '' and (:among is null or l.account in (select value from json_each(:among)));

-- name: callback_history
select url, actor, at, revision from callback_history where account = :account order by revision desc limit :limit;

-- name: recent
select seq from messages where account = :account and seq < :before order by seq desc limit :limit;

-- name: recent_pending
-- Pending and dead deliveries have an index by lane, so that a few among very many messages are found at once.
select distinct found.value as seq
from lanes l cross join json_each((
    select json_group_array(seq) from (
        select seq from deliveries indexed by deliveries_pending
        where lane = l.id and state in ('ready', 'behind') and seq < :before order by seq desc limit :limit
    )
)) found
where l.account = :account order by seq desc limit :limit;

-- name: recent_dead
select distinct found.value as seq
from lanes l cross join json_each((
    select json_group_array(seq) from (
        select seq from deliveries indexed by deliveries_dead
        where lane = l.id and state = 'dead' and seq < :before order by seq desc limit :limit
    )
)) found
where l.account = :account order by seq desc limit :limit;

-- name: matching
select m.seq, m.id, m.account, m.type, m.ordering_key, m.idempotency_key, null as body, m.size, m.sha256,
    m.accepted_at, m.duplicates
from json_each(:seqs) given
cross join messages m on m.seq = given.value
where (:type is null or m.type = :type) and (:ordering_key is null or m.ordering_key = :ordering_key)
    and (:since is null or m.accepted_at >= :since) and (:until is null or m.accepted_at < :until)
    and (:state is null or exists (
        select 1 from deliveries d where d.seq = m.seq
            and (d.state = :state or (:state = 'pending' and d.state in ('ready', 'behind')))
    ))
order by m.seq desc limit :limit;

-- name: save_credential
-- :accounts, :scopes and :networks are JSON; the last two are kept as words.
insert or replace into credentials (kind, id, owner, secret_hash, accounts, scopes, networks, created_at, expires_at)
values (
    :kind, :id, :owner, :secret_hash, :accounts,
    coalesce((select group_concat(value, ' ') from json_each(:scopes)), ''),
    coalesce((select group_concat(value, ' ') from json_each(:networks)), ''), :created_at, :expires_at
);

-- name: credential
select kind, id, owner, secret_hash, accounts, scopes, networks, created_at, expires_at from credentials
where kind = :kind and id = :id and (expires_at is null or expires_at > :now);

-- name: lock_credential
-- A write transaction has the file locked.
select kind, id, owner, secret_hash, accounts, scopes, networks, created_at, expires_at from credentials
where kind = :kind and id = :id and (expires_at is null or expires_at > :now);

-- name: credentials
select kind, id, owner, secret_hash, accounts, scopes, networks, created_at, expires_at from credentials
where kind = :kind and owner = :owner and (expires_at is null or expires_at > :now) order by created_at, id;

-- name: drop_credentials
delete from credentials where kind = :kind and id in (select value from json_each(:ids));

-- name: drop_expired_credentials
delete from credentials where kind = :kind and expires_at <= :now;

-- name: pending_usage
select count(*) as messages, coalesce(sum(size), 0) as bytes, coalesce(max(seq), 0) as last from (
    select d.seq, m.size from lanes l
    cross join deliveries d indexed by deliveries_pending on d.lane = l.id
    cross join messages m on m.seq = d.seq
    where l.account = :account and l.consumer = '' and d.state in ('ready', 'behind') and d.seq > :after
    order by d.seq limit :limit
);

-- name: add_audit
insert into audit (at, actor, address, action, account, subject, detail)
values (:now, :actor, :address, :action, :account, :subject, :detail);

-- name: audit
-- Newest first. :among is JSON; null means all entries.
select number, at, actor, address, action, account, subject, detail from audit
where number < :before and (:among is null or account in (select value from json_each(:among)))
order by number desc limit :limit;

-- name: remove_audit
delete from audit where number in (select number from audit where at < :now - :seconds order by number limit :limit)
returning number;

-- name: limits
select in_flight, per_second from limits where account = :account;

-- name: set_limits
insert or replace into limits (account, in_flight, per_second) values (:account, :in_flight, :per_second);

-- name: pause
-- The lane exists by now, so that an account can be paused before its first message.
update lanes set paused = 1, stopped_at = coalesce(stopped_at, :now) where account = :account and consumer = :consumer;

-- name: resume
update lanes set
    paused = 0, wait_until = 0, failures = 0, window = 4, refused = 0, reason = null,
    succeeded = 0, failed = 0, latency = 0,
    stopped_for = stopped_for + case when held = 0 then :now - coalesce(stopped_at, :now) else 0 end,
    stopped_at = case when held = 0 then null else stopped_at end
where account = :account and consumer = :consumer;

-- name: end_backoff
-- Deliveries in backoff become due, since the endpoint was replaced or repaired.
update deliveries set due = :now
where lane = (select id from lanes where account = :account and consumer = :consumer)
    and state = 'ready' and due > :now and strikes > 0;

-- name: lanes_of_origin
-- Lanes that wait for a receiver.
select l.id as lane from callbacks c join lanes l on l.account = c.account and l.consumer = ''
where c.origin = :origin and l.failures > 0 and l.wait_until > :now and l.held = 0 and l.paused = 0 limit :limit;

-- name: end_backoffs
update deliveries set due = :now
where lane in (select value from json_each(:lanes)) and state = 'ready' and due > :now and strikes > 0;

-- name: wake_lanes
update lanes set wait_until = :now, due = (select min(due) from deliveries where lane = lanes.id and state = 'ready')
where id in (select value from json_each(:lanes));

-- name: next_place
update sqlite_sequence set seq = seq + 1 where name = 'messages' returning seq;

-- name: redeliver
-- Moves the message's deliveries (all, or those in one state) to the tail of their key, with fresh attempts and time to
-- live.
update deliveries set
    place = :place, due = :now, attempts = 0, strikes = 0, settled_at = null,
    born = (select coalesce(stopped_at, :now) - stopped_for from lanes where id = deliveries.lane),
    state = case when key is not null and exists (
        select 1 from deliveries other
        where other.lane = deliveries.lane and other.key = deliveries.key and other.state in ('ready', 'behind')
    ) then 'behind' else 'ready' end
where seq = :seq and (:state is null or state = :state)
returning lane;

-- name: settled_messages
-- Of these messages those with bodies and without pending deliveries. :seqs is JSON.
select m.seq from json_each(:seqs) given cross join messages m on m.seq = given.value
where m.body is not null
    and not exists (select 1 from deliveries d where d.seq = m.seq and d.state in ('ready', 'behind'))
order by m.seq;

-- name: redeliverable
-- Settled messages of an account that have bodies and a delivery in this state, accepted in this time span.
select m.seq from messages m
where m.account = :account and m.seq > :done and m.seq <= :last
    and m.accepted_at >= :since and m.accepted_at < :until and m.body is not null
    and exists (select 1 from deliveries d where d.seq = m.seq and d.state = :state)
    and not exists (select 1 from deliveries d where d.seq = m.seq and d.state in ('ready', 'behind'))
order by m.seq limit :limit;

-- name: count_redeliverable
select count(*) as messages from messages m
where m.account = :account and m.seq <= :last
    and m.accepted_at >= :since and m.accepted_at < :until and m.body is not null
    and exists (select 1 from deliveries d where d.seq = m.seq and d.state = :state)
    and not exists (select 1 from deliveries d where d.seq = m.seq and d.state in ('ready', 'behind'));

-- name: last_message
select coalesce(max(seq), 0) as seq from messages where account = :account;

-- name: add_redelivery
insert into redeliveries (account, state, since, until, last) values (:account, :state, :since, :until, :last);

-- name: next_redelivery
select id, account, state, since, until, done, last from redeliveries order by id limit 1;

-- name: advance_redelivery
update redeliveries set done = :done where id = :id;

-- name: end_redelivery
delete from redeliveries where id = :id;

-- name: old_bodies
-- Some bodies, oldest first, with whether they are older than :seconds, and pending.
select m.seq, m.size, m.accepted_at, m.accepted_at < :now - :seconds as is_old,
    exists (select 1 from deliveries d where d.seq = m.seq and d.state in ('ready', 'behind')) as pending
from messages m where m.body is not null and m.seq > :seq order by m.seq limit :limit;

-- name: lock_messages
-- Changes nothing: a write transaction has the file locked.
select seq from messages where false;

-- name: prune
update messages set body = null where seq in (select value from json_each(:seqs))
    and not exists (select 1 from deliveries d where d.seq = messages.seq and d.state in ('ready', 'behind'))
returning size;

-- name: kept_bytes
-- Of the file, without its free pages.
select (page_count - freelist_count) * page_size as bytes
from pragma_page_count, pragma_freelist_count, pragma_page_size;

-- name: event_ends
-- The last number of each source, and the last lane change that retention removed.
select (select coalesce(max(seq), 0) from messages) as messages,
    (select coalesce(max(number), 0) from attempts) as attempts,
    (select coalesce(max(number), 0) from callback_history) as callbacks,
    (select coalesce(max(number), 0) from lane_changes) as lanes,
    coalesce(
        (select case state when 'removed' then number end from lane_changes order by number limit 1), 0
    ) as removed;

-- name: messages_accepted
select seq as position, accepted_at as at, account, id as message, type, ordering_key, size
from messages where seq > :after order by seq limit :limit;

-- name: attempts_finished
-- The plus makes the planner count by an index of the message, not by one of the numbers.
select a.number, coalesce(a.at, a.started_at) as at, l.account, m.id as message, l.consumer, a.started_at, a.url,
    a.outcome, a.status, a.error_code, a.phases,
    coalesce(a.state, case a.outcome when 'delivered' then 'delivered' else 'pending' end) as state,
    (select count(*) from attempts b where b.seq = a.seq and +b.number <= a.number) as ordinal
from attempts a join messages m on m.seq = a.seq join lanes l on l.id = a.lane
where a.number > :after order by a.number limit :limit;

-- name: callbacks_changed
select h.number as position, h.at, h.account, h.url, h.actor, h.revision,
    (select url from callback_history b where b.account = h.account and b.revision = h.revision - 1) is not null as before
from callback_history h where h.number > :after order by h.number limit :limit;

-- name: lanes_changed
select c.number as position, c.at, l.account, l.consumer, c.state, c.until, c.reason
from lane_changes c join lanes l on l.id = c.lane
where c.number > :after and c.state <> 'removed' order by c.number limit :limit;

-- name: old_lane_change
-- The last of some lane changes to remove; null if there are none.
select max(number) as number from (
    select number from lane_changes where at < :now - :seconds and state <> 'removed' order by number limit :limit
);

-- name: remove_lane_changes
delete from lane_changes where number < :number returning number;

-- name: mark_lane_change
update lane_changes set state = 'removed' where number = :number;

-- name: remove_counts
delete from counts where (minute, lane) in (
    select minute, lane from counts where minute < cast(:now / 60 as integer) - :minutes limit :limit
) returning minute;

-- name: backlog
-- Of the whole store. An index finds the oldest message of each lane, and there are fewer lanes than messages.
select (select count(*) from deliveries indexed by deliveries_pending where state in ('ready', 'behind')) as pending,
    (select count(*) from deliveries indexed by deliveries_dead where state = 'dead') as dead,
    :now - (
        select accepted_at from messages where seq = (
            select min((
                select d.seq from deliveries d indexed by deliveries_pending
                where d.lane = l.id and d.state in ('ready', 'behind') order by d.seq limit 1
            )) from lanes l
        )
    ) as oldest_age;

-- name: stats
-- :among is JSON; null means all accounts.
select minute, sum(accepted) as accepted, sum(delivered) as delivered, sum(failed) as failed, sum(dead) as dead
from counts
where minute > cast(:now / 60 as integer) - :minutes and (:among is null or lane in (
    select l.id from json_each(:among) given cross join lanes l on l.account = given.value
))
group by minute order by minute;

-- name: this_minute
select cast(:now / 60 as integer) as minute;

-- name: find_campaigns
-- :names is JSON, accounts and campaigns.
select c.id, c.account, c.campaign from json_each(:names) given
cross join campaigns c on c.account = given.value ->> 0 and c.campaign = given.value ->> 1;

-- name: add_campaigns
insert into campaigns (account, campaign) select value ->> 0, value ->> 1 from json_each(:names) where true
on conflict (account, campaign) do nothing;

-- name: record_reports
-- The state guard: a status that goes back in the life cycle changes nothing, nor does a result that is known already. Among
-- results, ThingSpace's report is right. Rows as the columns are.
insert into ledger (seq, campaign, device, status, rank, by_report, detail, repairs, at) values {rows}
on conflict (campaign, device) do update set
    seq = excluded.seq, status = excluded.status, rank = excluded.rank, at = excluded.at, by_report = excluded.by_report,
    repairs = ledger.repairs + excluded.repairs, detail = excluded.detail
where excluded.rank > ledger.rank
    or (excluded.rank = ledger.rank and excluded.status <> ledger.status)
    or (excluded.rank = ledger.rank and excluded.rank < 5 and excluded.seq > ledger.seq and not ledger.by_report)
    or (excluded.by_report and excluded.rank >= 5 and excluded.status <> ledger.status);

-- name: stale_reports
-- Those that the guard held off. Rows: message, campaign, device.
select given.column1 as seq, given.column3 as device from (values {rows}) given
join ledger l on l.campaign = given.column2 and l.device = given.column3
where l.seq <> given.column1;

-- name: add_notes
insert into notes (seq, note) select value ->> 0, value ->> 1 from json_each(:rows);

-- name: expect_devices
insert into ledger (campaign, device) select :campaign, value from json_each(:devices) where true
on conflict (campaign, device) do nothing;

-- name: change_campaign
-- Null leaves a column as it is.
update campaigns set ends_at = coalesce(:ends_at, ends_at), cursor = coalesce(:cursor, cursor) where id = :campaign;

-- name: ledger_campaigns
select c.id, c.account, c.campaign, l.status, coalesce(l.rank, 0) as rank, l.at, c.ends_at, c.cursor
from campaigns c left join ledger l on l.campaign = c.id and l.device = ''
where c.id > :after and (:account is null or (c.account = :account and c.campaign = :campaign)) order by c.id limit :limit;

-- name: ledger_devices
select device, status, rank, at, by_report, repairs from ledger
where campaign = :campaign and device > :after
    and (:among is null or device in (select value from json_each(:among)))
order by device limit :limit;

-- name: ledger_counts
select coalesce(status, '') as status, rank >= :final as is_final, count(*) as devices, sum(repairs) as repairs
from ledger where campaign = :campaign and device <> '' group by 1, 2 order by 1;

-- name: latest_campaigns
select c.id, c.account, c.campaign, l.status, coalesce(l.rank, 0) as rank, l.at, c.ends_at, c.cursor
from campaigns c left join ledger l on l.campaign = c.id and l.device = ''
where c.id < :before and (:among is null or c.account in (select value from json_each(:among)))
    and (:campaign is null or substr(c.campaign, 1, length(:campaign)) = :campaign)
order by c.id desc limit :limit;

-- name: campaign_devices
-- Of so many devices behind :after, those of a kind. The last one that was looked at tells where to go on.
select d.device, d.status, d.rank, d.at, d.by_report, d.repairs, d.detail, m.id as message, d.fits
from (
    select l.*, case :kind when 'succeeded' then l.rank > :final when 'failed' then l.rank = :final when 'silent' then l.rank < :final
    else true end as fits from ledger l
    where l.campaign = :campaign and l.device > :after order by l.device limit :scan
) d left join messages m on m.seq = d.seq
order by d.device;

-- name: campaign_reasons
select coalesce(detail, '') as reason, count(*) as devices from ledger
where campaign = :campaign and device <> '' and rank = :failed group by 1 order by 2 desc, 1 limit :limit;

-- name: find_device
select c.account, c.campaign, l.device, l.status, l.at, l.detail, null as told
from campaigns c cross join ledger l on l.campaign = c.id and l.device = :device
where l.status is not null and (:among is null or c.account in (select value from json_each(:among))) order by l.at desc limit :limit;

-- name: reports_of_campaign
select c.campaign, l.device, l.status, l.at, l.detail, null as told from campaigns c join ledger l on l.campaign = c.id
where c.account = :account and c.campaign = :campaign and l.status is not null
    and l.device >= coalesce(:after, '') and (:after is null or l.device <> :after)
order by l.device limit :limit;

-- name: reports_of_device
select c.campaign, l.device, l.status, l.at, l.detail, i.detail as told from campaigns c
join ledger l on l.campaign = c.id and l.device = :device
left join ledger i on i.campaign = c.id and i.device = ''
where c.account = :account and c.campaign > :after and l.status is not null order by c.campaign limit :limit;

-- name: overdue_devices
-- Of campaigns that ended within the last :seconds.
select count(*) as devices from campaigns c indexed by campaigns_by_end cross join ledger l on l.campaign = c.id
where c.ends_at <= :now and c.ends_at > :now - :seconds and l.device <> '' and l.rank < :final;

-- name: forget_reports
delete from ledger where campaign = :campaign and device in (
    select l.device from ledger l join campaigns c on c.id = l.campaign
    where l.campaign = :campaign and coalesce(l.at, c.ends_at) < :now - :seconds limit :limit
) returning device;

-- The statements that both engines have alike, by name. :now is the store's clock, `in :names` looks into a collection; a null
-- collection needs its type. SQLite reads them without types.

-- name: give_room_back
delete from credentials where kind = 'probe' and id = :id;

-- name: write_nothing
-- Changes nothing, and fails if the store cannot be written.
update lanes set token = token where false;

-- name: callback
select account, url, revision, registered_at from callbacks where account = :account;

-- name: drop_callback
delete from callbacks where account = :account returning account;

-- name: add_history
insert into callback_history (account, revision, url, actor, at)
select :account, coalesce(max(revision), 0) + 1, :url, :actor, :now
from callback_history where account = :account
returning revision;

-- name: longest_pending
select p.seq from lanes l join pending p on p.lane = l.id where l.account = :account order by p.seq limit :limit;

-- name: state_counts
select count(*) filter (where not l.held and not l.paused and l.wait_until <= :now) as open,
    count(*) filter (where not l.held and not l.paused and l.wait_until > :now) as waiting,
    count(*) filter (where l.held and not l.paused) as held,
    count(*) filter (where l.paused) as paused,
    count(*) filter (where l.failures > 0 or l.reason is not null or (l.held and l.due is not null)) as trouble
from lanes l where l.consumer = :consumer and (:among::text[] is null or l.account in :among);

-- name: callback_history
select h.url, h.actor, h.at, h.revision,
    case
        when h.url is null then 'deregistered'
        when (
            select url from callback_history b where b.account = h.account and b.revision = h.revision - 1
        ) is not null then 'replaced'
        else 'registered'
    end as action
from callback_history h where h.account = :account order by h.revision desc limit :limit;

-- name: span
-- The number of the first message from one id on, and one more than that of the last before another; ids begin with the time.
-- Where the clock was ahead, ids are ahead of the times: then the last number counts, and when that one was accepted.
select coalesce((select seq from messages where id >= :since order by id limit 1), 0) as first,
    coalesce((select seq from messages where id < :until order by id desc limit 1), 0) + 1 as "end",
    coalesce((select seq from messages order by seq desc limit 1), 0) + 1 as last_end,
    (select accepted_at from messages order by seq desc limit 1) as last_at;

-- name: newest
-- Between two numbers, of these accounts (null: of all).
select seq from messages
where seq < :before and seq >= :floor
    and (:among::text[] is null or account in :among)
    and (:type::text is null or type = :type)
    and (:since::double precision is null or accepted_at >= :since)
    and (:until::double precision is null or accepted_at < :until)
order by seq desc limit :limit;

-- name: credential
select kind, id, owner, secret_hash, accounts, scopes, networks, created_at, expires_at from credentials
where kind = :kind and id = :id and (expires_at is null or expires_at > :now);

-- name: credentials
select kind, id, owner, secret_hash, accounts, scopes, networks, created_at, expires_at from credentials
where kind = :kind and owner = :owner and (expires_at is null or expires_at > :now) order by created_at, id;

-- name: drop_credentials
delete from credentials where kind = :kind and id in :ids::text[];

-- name: drop_expired_credentials
delete from credentials where kind = :kind and expires_at <= :now;

-- name: amend_audit
update audit set detail = :detail where number = :number;

-- name: audit
select number, at, actor, address, action, account, subject, detail from audit
where number < :before and (:among::text[] is null or account in :among)
order by number desc limit :limit;

-- name: remove_audit
delete from audit where number in (select number from audit where at < :before order by number limit :limit)
returning number;

-- name: limits
select in_flight, per_second, pending_messages, pending_bytes, publishes_per_second, changes_per_hour
from limits where account = :account;

-- name: quotas
select account, in_flight, per_second, pending_messages, pending_bytes, publishes_per_second, changes_per_hour from limits
where coalesce(pending_messages, pending_bytes, publishes_per_second, changes_per_hour) is not null;

-- name: recall_pending
update pending set due = :now where lane in :lanes::bigint[] and due > :now;

-- name: add_redelivery
insert into redeliveries (account, state, since, until, last) values (:account, :state, :since, :until, :last);

-- name: advance_redelivery
update redeliveries set done = :done where id = :id;

-- name: end_redelivery
delete from redeliveries where id = :id;

-- name: old_lanes
select number, 0 as size, at < :before as is_old, false as blocked
from lane_changes where number > :after order by number limit :limit;

-- name: remove_attempts
delete from attempts where number in :numbers::bigint[];

-- name: remove_messages
delete from messages where seq in :numbers::bigint[];

-- name: remove_lanes
delete from lane_changes where number in :numbers::bigint[];

-- name: next_fine_minute
select minute from counts where minute > :after and minute < :before and minute % 60 > 0 order by minute limit 1;

-- name: drop_minute
-- Moved already.
delete from counts where minute = :minute;

-- name: remove_notes_of
delete from notes where seq in :numbers::bigint[];

-- name: change_campaign
-- Null leaves a column as it is.
update campaigns set ends_at = coalesce(:ends_at, ends_at), cursor = coalesce(:cursor, cursor) where id = :campaign;

-- name: ledger_campaigns
select c.id, c.account, c.campaign, l.status, coalesce(l.rank, 0) as rank, l.at, c.ends_at, c.cursor
from campaigns c left join ledger l on l.campaign = c.id and l.device = ''
where c.id > :after and (:account::text is null or (c.account = :account and c.campaign = :campaign))
order by c.id limit :limit;

-- name: ledger_counts
select coalesce(status, '') as status, rank >= :final as is_final, count(*) as devices, sum(repairs)::bigint as repairs
from ledger where campaign = :campaign and device <> '' group by 1, 2 order by 1;

-- name: latest_campaigns
select c.id, c.account, c.campaign, l.status, coalesce(l.rank, 0) as rank, l.at, c.ends_at, c.cursor
from campaigns c left join ledger l on l.campaign = c.id and l.device = ''
where c.id < :before and (:among::text[] is null or c.account in :among)
    and (:campaign::text is null or substr(c.campaign, 1, length(:campaign::text)) = :campaign::text)
order by c.id desc limit :limit;

-- name: ledger_devices
-- Of so many devices behind :after, those of a kind. The last one that was looked at tells where to go on.
select d.device, d.status, d.rank, d.at, d.by_report, d.repairs, d.detail, m.id as message, d.fits
from (
    select l.*, case :kind::text when 'succeeded' then l.rank > :final when 'failed' then l.rank = :final
    when 'silent' then l.rank < :final else true end as fits from ledger l
    where l.campaign = :campaign and l.device > :after and (:among::text[] is null or l.device in :among)
    order by l.device limit :scan
) d left join messages m on m.seq = d.seq
order by d.device;

-- name: campaign_timeline
-- In at most :slots equal spans of time, those in which a device said its last status. The engines truncate differently.
select b.first + round((l.at - b.first) / b.step - 0.499999) * b.step as at,
    sum(case when l.rank > :final then 1 else 0 end) as succeeded, sum(case when l.rank = :final then 1 else 0 end) as failed,
    sum(case when l.rank < :final then 1 else 0 end) as other
from ledger l cross join (
    select min(at) as first, (max(at) - min(at)) / :slots + 1 as step from ledger
    where campaign = :campaign and device <> '' and status is not null
) b where l.campaign = :campaign and l.device <> '' and l.status is not null group by 1 order by 1;

-- name: campaign_reasons
select coalesce(detail, '') as reason, count(*) as count from ledger
where campaign = :campaign and device <> '' and rank = :failed group by 1 order by 2 desc, 1 limit :limit;

-- name: reports_of_campaign
select c.account, c.campaign, l.device, l.status, l.at, l.detail, null as told from campaigns c join ledger l on l.campaign = c.id
where c.account = :account and c.campaign = :campaign and l.status is not null
    and l.device >= coalesce(:after::text, '') and (:after::text is null or l.device <> :after::text)
order by l.device limit :limit;

-- name: reports_of_device
select c.account, c.campaign, l.device, l.status, l.at, l.detail, i.detail as told from campaigns c
join ledger l on l.campaign = c.id and l.device = :device
left join ledger i on i.campaign = c.id and i.device = ''
where c.account = :account and c.campaign > :after::text and l.status is not null order by c.campaign limit :limit;

-- name: forget_reports
delete from ledger where campaign = :campaign and device in (
    select l.device from ledger l join campaigns c on c.id = l.campaign
    where l.campaign = :campaign and coalesce(l.at, c.ends_at) < :now - :seconds limit :limit
) returning device;

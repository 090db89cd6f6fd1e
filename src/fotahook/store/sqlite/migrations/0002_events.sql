-- What happened is told from the rows that are written anyway: messages, attempts, the history of callbacks. Each has a
-- number that grows and never comes again, in the order in which the one writer wrote them.

create table numbered_attempts (
    number integer primary key autoincrement,
    seq integer not null references messages,
    lane integer not null references lanes,
    started_at real not null,
    url text,
    outcome text not null,
    status integer,
    error_code text,
    fix text,
    phases text not null,
    excerpt text not null,
    -- When it was settled, and what its delivery was then; null in rows that are older than this migration.
    at real,
    state text
) strict;

insert into numbered_attempts (
    number, seq, lane, started_at, url, outcome, status, error_code, fix, phases, excerpt
)
select rowid, seq, lane, started_at, url, outcome, status, error_code, fix, phases, excerpt from attempts order by rowid;

drop table attempts;
alter table numbered_attempts rename to attempts;
create index attempts_by_message on attempts (seq);

create table numbered_history (
    number integer primary key autoincrement,
    account text not null,
    revision integer not null,
    url text,
    actor text not null,
    at real not null,
    unique (account, revision)
) strict;

insert into numbered_history (account, revision, url, actor, at)
select account, revision, url, actor, at from callback_history order by at, account, revision;

drop table callback_history;
alter table numbered_history rename to callback_history;

-- A lane's state as events tell it: waiting from the first trouble of its endpoint to the next success, whatever is tried
-- in between.
alter table lanes add column told text generated always as (
    case when paused then 'paused' when held then 'held' when failures > 0 then 'waiting' else 'open' end
) virtual;

-- What retention has removed is remembered by its last row, whose state is then `removed`.
create table lane_changes (
    number integer primary key autoincrement,
    lane integer not null references lanes,
    at real not null,
    state text not null,
    until real,
    reason text
) strict;

-- store_now() is the store's own clock.
create trigger lane_changed after update of paused, held, failures on lanes when old.told <> new.told
begin
    insert into lane_changes (lane, at, state, until, reason) values (
        new.id, store_now(), new.told, case when new.told = 'waiting' then new.wait_until end, new.reason
    );
end;

-- A lane to a callback is held until a callback is there; one that begins otherwise was opened.
create trigger lane_opened after insert on lanes when new.consumer = '' and new.told = 'open'
begin
    insert into lane_changes (lane, at, state) values (new.id, store_now(), new.told);
end;

-- How much happened in each lane in each minute since 1970: messages accepted, deliveries delivered and dead, attempts that
-- failed.
create table counts (
    minute integer not null,
    lane integer not null references lanes,
    accepted integer not null default 0,
    delivered integer not null default 0,
    failed integer not null default 0,
    dead integer not null default 0,
    primary key (minute, lane)
) strict, without rowid;

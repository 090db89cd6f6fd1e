-- The campaigns that the messages of a listener's inbox report on: when they end, and behind which device the reading of
-- their report goes on.
create table campaigns (
    id integer primary key,
    account text not null,
    campaign text not null,
    ends_at real,
    cursor text not null default '',
    unique (account, campaign)
);

create index campaigns_by_end on campaigns (ends_at) where ends_at is not null;

-- Of each device in a campaign, and of the campaign itself (device ''), the last status: its place in the life cycle, when it
-- came and by which message. A device that is only expected has none. `by_report`: ThingSpace's report said it, and no
-- message did; `repairs`: how often that was so.
create table ledger (
    campaign integer not null,
    device text not null,
    seq integer not null default 0,
    status text,
    rank integer not null default 0,
    at real,
    by_report integer not null default 0,
    repairs integer not null default 0,
    primary key (campaign, device)
) without rowid;

-- What deliverers are told of a message beside its bytes, for the few messages that have such a note.
create table notes (
    seq integer primary key,
    note text not null
);

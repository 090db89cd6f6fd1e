-- The campaigns that the messages of a listener's inbox report on: when they end, and behind which device the reading of
-- their report goes on.
create table campaigns (
    id bigint generated always as identity primary key,
    account text collate "C" not null,
    campaign text collate "C" not null,
    ends_at double precision,
    cursor text not null default '',
    unique (account, campaign)
);

create index campaigns_by_end on campaigns (ends_at) where ends_at is not null;

-- Of each device in a campaign, and of the campaign itself (device ''), the last status: its place in the life cycle, when it
-- came and by which message. A device that is only expected has none. `by_report`: ThingSpace's report said it, and no
-- message did; `repairs`: how often that was so.
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

-- What deliverers are told of a message beside its bytes, for the few messages that have such a note.
create table notes (
    seq bigint primary key,
    note text not null
);

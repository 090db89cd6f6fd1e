-- A SQLite store of schema 9.
BEGIN TRANSACTION;
CREATE TABLE "attempts" (
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
INSERT INTO "attempts" VALUES(1,1,2,1790000001.0,'https://receiver.example/callbacks','failed',503,'timeout_connect',NULL,'{"connect":0.2,"total":1.5}','ok',0,1790000000.0,'pending',1);
INSERT INTO "attempts" VALUES(2,1,2,1790000001.0,'https://receiver.example/callbacks','delivered',200,NULL,NULL,'{"connect":0.2,"total":1.5}','ok',0,1790000000.0,'delivered',1);
INSERT INTO "attempts" VALUES(3,2,2,1790000001.0,'https://receiver.example/callbacks','failed',503,'response_4xx',NULL,'{"connect":0.2,"total":1.5}','ok',0,1790000000.0,'dead',8);
INSERT INTO "attempts" VALUES(4,3,2,1790000001.0,'https://receiver.example/callbacks','delivered',200,NULL,NULL,'{"connect":0.2,"total":1.5}','ok',0,1790000000.0,'delivered',0);
INSERT INTO "attempts" VALUES(5,4,2,1790000001.0,'https://receiver.example/callbacks','delivered',200,NULL,NULL,'{"connect":0.2,"total":1.5}','ok',0,1790000000.0,'delivered',1);
INSERT INTO "attempts" VALUES(6,11,3,1790000001.0,'https://receiver.example/callbacks','failed',503,'timeout_connect',NULL,'{"connect":0.2,"total":1.5}','ok',0,1790000000.0,'pending',0);
CREATE TABLE audit (
    number integer primary key autoincrement,
    at real not null,
    actor text not null,
    address text not null,
    action text not null,
    account text,
    subject text not null,
    detail text not null
) strict;
CREATE TABLE bodies (
    seq integer primary key,
    body blob not null
) strict;
INSERT INTO "bodies" VALUES(1,X'7B226E223A2264656C697665726564227D');
INSERT INTO "bodies" VALUES(2,X'7B226E223A2264656164227D');
INSERT INTO "bodies" VALUES(3,X'7B226E223A22726564656C697665726564227D');
INSERT INTO "bodies" VALUES(6,X'7B226E223A22636861696E2031227D');
INSERT INTO "bodies" VALUES(7,X'7B226E223A22636861696E2032227D');
INSERT INTO "bodies" VALUES(8,X'7B226E223A22636861696E2033227D');
INSERT INTO "bodies" VALUES(9,X'7B226E223A2266726565227D');
INSERT INTO "bodies" VALUES(10,X'7B226E223A2268656C64227D');
INSERT INTO "bodies" VALUES(11,X'7B226E223A227761697473227D');
INSERT INTO "bodies" VALUES(12,X'7B226E223A226B6E6F776E206279206279746573227D');
CREATE TABLE "callback_history" (
    number integer primary key autoincrement,
    account text not null,
    revision integer not null,
    url text,
    actor text not null,
    at real not null,
    unique (account, revision)
) strict;
INSERT INTO "callback_history" VALUES(1,'moved',1,'https://receiver.example/moved','test',1790000000.0);
INSERT INTO "callback_history" VALUES(2,'open',1,'https://receiver.example/open','test',1790000000.0);
INSERT INTO "callback_history" VALUES(3,'trouble',1,'https://receiver.example/trouble','test',1790000000.0);
INSERT INTO "callback_history" VALUES(4,'moved',2,'https://other.example/moved','test',1790000000.0);
INSERT INTO "callback_history" VALUES(5,'moved',3,NULL,'test',1790000000.0);
CREATE TABLE callbacks (
    account text primary key,
    url text not null,
    revision integer not null,
    registered_at real not null
, origin text generated always as (
    substr(url, 1, instr(replace(substr(url, 9), '?', '/') || '/', '/') + 7)
) virtual) strict, without rowid;
INSERT INTO "callbacks" VALUES('open','https://receiver.example/open',1,1790000000.0);
INSERT INTO "callbacks" VALUES('trouble','https://receiver.example/trouble',1,1790000000.0);
CREATE TABLE campaigns (
    id integer primary key,
    account text not null,
    campaign text not null,
    ends_at real,
    cursor text not null default '',
    unique (account, campaign)
);
INSERT INTO "campaigns" VALUES(1,'inbox','c1',1790100000.0,'');
CREATE TABLE counts (
    minute integer not null,
    lane integer not null references lanes,
    accepted integer not null default 0,
    delivered integer not null default 0,
    failed integer not null default 0,
    dead integer not null default 0,
    primary key (minute, lane)
) strict, without rowid;
INSERT INTO "counts" VALUES(29833333,1,1,0,0,0);
INSERT INTO "counts" VALUES(29833333,2,8,3,2,1);
INSERT INTO "counts" VALUES(29833333,3,1,0,1,0);
INSERT INTO "counts" VALUES(29833333,4,1,0,0,0);
INSERT INTO "counts" VALUES(29833333,5,1,0,0,0);
CREATE TABLE credentials (
    kind text not null,
    id text not null,
    owner text not null,
    secret_hash blob not null,
    accounts text,
    scopes text not null,
    created_at real not null,
    expires_at real, networks text not null default '',
    primary key (kind, id)
) strict, without rowid;
INSERT INTO "credentials" VALUES('client','c','',X'78',NULL,'publish',0.0,NULL,'');
CREATE TABLE dead (
    lane integer not null,
    seq integer not null,
    attempts integer not null,
    settled_at real not null,
    primary key (lane, seq)
) strict, without rowid;
INSERT INTO "dead" VALUES(2,2,8,1790000000.0);
CREATE TABLE lane_changes (
    number integer primary key autoincrement,
    lane integer not null references lanes,
    at real not null,
    state text not null,
    until real,
    reason text
) strict;
INSERT INTO "lane_changes" VALUES(1,1,1790000000.0,'open',NULL,NULL);
INSERT INTO "lane_changes" VALUES(2,2,1790000000.0,'open',NULL,NULL);
INSERT INTO "lane_changes" VALUES(3,3,1790000000.0,'open',NULL,NULL);
INSERT INTO "lane_changes" VALUES(4,1,1790000000.0,'held',NULL,NULL);
INSERT INTO "lane_changes" VALUES(5,3,1790000000.0,'waiting',1790000005.0,'timeout_connect');
CREATE TABLE lanes (
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
    stopped_at real,
    stopped_for real not null default 0,
    failures integer not null default 0,
    window integer not null default 1,
    refused integer not null default 0,
    reason text, told text generated always as (
    case when paused then 'paused' when held then 'held' when failures > 0 then 'waiting' else 'open' end
) virtual, succeeded real not null default 0, failed real not null default 0, latency real not null default 0,
    unique (account, consumer)
) strict;
INSERT INTO "lanes" VALUES(1,'moved','',1,0,0,1790000000.0,0.0,0.0,1790000000.0,0.0,0,4,0,NULL,0.0,0.0,0.0);
INSERT INTO "lanes" VALUES(2,'open','',0,0,5,1790000000.0,0.0,0.0,NULL,0.0,0,4,0,NULL,0.0,0.0,0.0);
INSERT INTO "lanes" VALUES(3,'trouble','',0,0,1,1790000005.0,1790000005.0,0.0,NULL,0.0,1,1,0,'timeout_connect',0.0,0.0,0.0);
INSERT INTO "lanes" VALUES(4,'inbox','billing',0,0,0,1790000000.0,0.0,0.0,NULL,0.0,0,4,0,NULL,0.0,0.0,0.0);
INSERT INTO "lanes" VALUES(5,'inbox','handlers',0,0,0,1790000000.0,0.0,0.0,NULL,0.0,0,4,0,NULL,0.0,0.0,0.0);
CREATE TABLE ledger (
    campaign integer not null,
    device text not null,
    seq integer not null default 0,
    status text,
    rank integer not null default 0,
    at real,
    by_report integer not null default 0,
    repairs integer not null default 0, detail text,
    primary key (campaign, device)
) without rowid;
INSERT INTO "ledger" VALUES(1,'990013907835573',12,'UpgradeSuccess',5,1790000000.0,0,0,NULL);
CREATE TABLE limits (
    account text primary key,
    in_flight integer,
    per_second real
) strict, without rowid;
INSERT INTO "limits" VALUES('open',3,NULL);
CREATE TABLE "messages" (
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
INSERT INTO "messages" VALUES(1,'01a0c450-6c00-7000-a90d-d4027ea43355','open','t',NULL,'key-1',-856510682544569184,17,X'07004FE703112F6D417A0F9B97EBC4D879E00EA1AED5D5AAA4C49769223C1301',1790000000.0,0);
INSERT INTO "messages" VALUES(2,'01a0c450-6c00-7001-b747-c07f07b580e3','open',NULL,'d',NULL,NULL,12,X'E0F0FE3E32B0EBFCB6D3FF224066AD46BD53AA8A13B9F6CBF3A6F31A03097964',1790000000.0,0);
INSERT INTO "messages" VALUES(3,'01a0c450-6c00-7002-a338-29c203ffdd23','open',NULL,NULL,NULL,NULL,19,X'FE514B55FE55CA6A43AD4C52815C3339C04309A3953ABF90FF7824D2AF21BFDB',1790000000.0,0);
INSERT INTO "messages" VALUES(4,'01a0c450-6c00-7003-aaa7-119ed57b6643','open',NULL,NULL,'key-2',-7783203753748842517,14,X'B399AB845F797D020D9AEA8191711D05338DD57873519CCF2C3DD3B42CA5E643',1790000000.0,0);
INSERT INTO "messages" VALUES(6,'01a0c450-6c00-7004-aca6-5fb4debe9d55','open',NULL,'chain',NULL,NULL,15,X'D2C1ECA1932EDFEB8D1373F5D3010F9B41E93E75B877A984CEEE84E2866409D5',1790000000.0,0);
INSERT INTO "messages" VALUES(7,'01a0c450-6c00-7005-a7e1-fc32a61a1367','open',NULL,'chain',NULL,NULL,15,X'09BB375366154868584D2DDE6F677FAE0DACE7EA7D54807F7BA2DD999CB72117',1790000000.0,0);
INSERT INTO "messages" VALUES(8,'01a0c450-6c00-7006-9c8e-15e40ea7fa11','open',NULL,'chain',NULL,NULL,15,X'89ED96ADB541C55DB484C25429BA0F2AA57D1C8F0C48E92FD08F35D03B019E85',1790000000.0,0);
INSERT INTO "messages" VALUES(9,'01a0c450-6c00-7007-9779-6774c56c9957','open',NULL,NULL,NULL,NULL,12,X'D1A31D0517812C919FED86145DA123D8074418D331E8D49CF1BD02FF1C73BCDD',1790000000.0,0);
INSERT INTO "messages" VALUES(10,'01a0c450-6c00-7008-8536-8dff4266aa64','moved',NULL,NULL,NULL,NULL,12,X'3549DEE831FA96299B63C3A9C7735C64CB0695E41C3C5F4A865BE95D9B981B52',1790000000.0,0);
INSERT INTO "messages" VALUES(11,'01a0c450-6c00-7009-b566-cbfb2b88d665','trouble',NULL,NULL,NULL,NULL,13,X'E93A5EC3E385F8A444CF05E1B6D0B0FEAF5A3F3891F01C8FFD1B7CDACC3D9667',1790000000.0,0);
INSERT INTO "messages" VALUES(12,'01a0c450-6c00-700a-a7b7-ab191c606d10','inbox',NULL,NULL,NULL,7066184474463936677,22,X'621021575DCDA0A5E8D68D0DF2D0A7448CFE1E04ED971A84ACBC050B1809C077',1790000000.0,0);
CREATE TABLE notes (
    seq integer primary key,
    note text not null
);
CREATE TABLE pending (
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
INSERT INTO "pending" VALUES(1,10,10,NULL,1,1790000000.0,1790000000.0,0,0);
INSERT INTO "pending" VALUES(2,3,5,NULL,1,1790000000.0,1790000000.0,0,0);
INSERT INTO "pending" VALUES(2,6,6,'chain',1,1790000000.0,1790000000.0,0,0);
INSERT INTO "pending" VALUES(2,7,7,'chain',0,1790000000.0,1790000000.0,0,0);
INSERT INTO "pending" VALUES(2,8,8,'chain',0,1790000000.0,1790000000.0,0,0);
INSERT INTO "pending" VALUES(2,9,9,NULL,1,1790000000.0,1790000000.0,0,0);
INSERT INTO "pending" VALUES(3,11,11,NULL,1,1790000005.0,1790000000.0,0,1);
INSERT INTO "pending" VALUES(4,12,12,NULL,1,1790000000.0,1790000000.0,0,0);
INSERT INTO "pending" VALUES(5,12,12,NULL,1,1790000000.0,1790000000.0,0,0);
CREATE TABLE places (
    last integer not null
) strict;
INSERT INTO "places" VALUES(12);
CREATE TABLE redeliveries (
    id integer primary key,
    account text not null,
    state text not null,
    since real not null,
    until real not null,
    done integer not null default 0,
    last integer not null
) strict;
CREATE TABLE removed (
    source text primary key,
    number integer not null
) strict, without rowid;
INSERT INTO "removed" VALUES('attempts',0);
INSERT INTO "removed" VALUES('callbacks',0);
INSERT INTO "removed" VALUES('lanes',0);
INSERT INTO "removed" VALUES('messages',0);
CREATE INDEX lanes_by_next on lanes (next) where held = 0 and paused = 0 and due is not null;
CREATE INDEX credentials_by_owner on credentials (kind, owner, created_at);
CREATE TRIGGER lane_changed after update of paused, held, failures on lanes when old.told <> new.told
begin
    insert into lane_changes (lane, at, state, until, reason) values (
        new.id, store_now(), new.told, case when new.told = 'waiting' then new.wait_until end, new.reason
    );
end;
CREATE TRIGGER lane_opened after insert on lanes when new.consumer = '' and new.told = 'open'
begin
    insert into lane_changes (lane, at, state) values (new.id, store_now(), new.told);
end;
CREATE INDEX callbacks_by_origin on callbacks (origin);
CREATE INDEX audit_by_account on audit (account, number);
CREATE INDEX campaigns_by_end on campaigns (ends_at) where ends_at is not null;
CREATE INDEX pending_ready on pending (lane, due, place) where ready = 1;
CREATE INDEX pending_by_key on pending (lane, key, place) where key is not null;
CREATE INDEX attempts_by_message on attempts (seq);
CREATE UNIQUE INDEX messages_by_id on messages (id);
CREATE INDEX messages_by_key_hash on messages (key_hash) where key_hash is not null;
CREATE INDEX messages_by_account on messages (seq >> 8, account);
CREATE VIEW settled as
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
CREATE VIEW waiting as
select m.seq, p.lane
from messages m cross join lanes l on l.account = m.account cross join pending p on p.lane = l.id and p.seq = m.seq;
CREATE VIEW backlogs as
select l.id as lane,
    (select count(*) from pending where lane = l.id) as pending,
    (select count(*) from dead where lane = l.id) as dead,
    (select m.accepted_at from pending p join messages m on m.seq = p.seq
     where p.lane = l.id order by p.seq limit 1) as oldest_accepted_at
from lanes l;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('callback_history',5);
INSERT INTO "sqlite_sequence" VALUES('lane_changes',5);
COMMIT;
PRAGMA user_version = 9;

-- Why a device has its status; of the campaign itself (device ''), what was told of it, as JSON.
alter table ledger add column detail text;

//! What happens when something that the runner needs fails: real servers, real processes, signals.

mod backup_directory;
mod bucket_steps;
mod buckets;
mod coordination;
mod existing;
mod files;
mod foreign_writes;
mod full_disk;
mod hosts;
mod intervals;
mod last_runs;
mod lives;
mod moody_bucket;
mod moody_server;
mod orphans;
mod plans;
mod power_cuts;
mod readers;
mod replicas;
mod stores;
mod workers;

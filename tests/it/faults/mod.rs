//! What happens when something that the runner needs fails: real servers, real processes, signals.

mod backup_directory;
mod bucket_steps;
mod buckets;
mod coordination;
mod existing;
mod files;
mod hosts;
mod moody_bucket;
mod plans;
mod replicas;
mod stores;
mod workers;

//! What happens when something that the runner needs fails: real servers, real processes, signals.

mod buckets;
mod coordination;
mod existing;
mod files;
mod hosts;
mod plans;
mod replicas;
mod stores;
mod workers;

//! What strangers, workers and hostile codemods can do to the service: real processes, attacked.

mod bodies;
mod connections;
mod labels;

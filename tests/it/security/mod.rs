//! What strangers, workers, web pages and hostile codemods can do to the service and the bundled
//! worker: real processes, attacked.

mod admin_addresses;
mod admin_tokens;
mod audit;
mod bodies;
mod connections;
mod labels;
mod logins;
mod page;
mod parsers;
mod private_files;
mod reports;
mod requests;
mod secrets;
mod terminal;
mod tls;
mod uploads;
mod web_pages;
mod worker_repository;
mod worker_sandbox;
mod worker_secrets;
mod worker_work_dir;

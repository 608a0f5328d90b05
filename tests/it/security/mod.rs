//! What nobody may do, shown with real processes: `shared/spec/security.md`, point by point.

mod audit;
mod parsers;
mod private_files;
mod requests;
mod secrets;
mod terminal;

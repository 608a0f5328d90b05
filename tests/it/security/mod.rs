//! What nobody may do, shown with real processes: `shared/spec/security.md`, point by point.

mod admin_addresses;
mod admin_tokens;
mod web_pages;

//! What strangers, workers, codemods and other users try, and must not be able to do.

mod worker_repository;
mod worker_secrets;
mod worker_work_dir;

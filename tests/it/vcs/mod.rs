//! Version control: probes of real repositories, and what becomes of items whose forges misbehave.

mod assignments;
mod dependencies;
mod lives;
mod probes;
mod resumes;
mod silence;

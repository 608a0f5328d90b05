//! How branches are probed. There is no adapter yet that does: see [`none`].

pub mod none;

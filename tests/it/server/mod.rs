//! The real program: recorded exchanges, kills, the demo, the bundled worker and the command line.

mod commands;
mod crash;
mod golden;
mod worker;

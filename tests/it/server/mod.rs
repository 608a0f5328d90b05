//! The real program: recorded exchanges, stores of earlier versions, kills, the demo, the bundled
//! worker and the command line.

mod commands;
mod crash;
mod golden;
mod old_stores;
mod worker;

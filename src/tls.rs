//! The way in which TLS is done, the same for every client of this program.

/// Chooses it for the process; to be called before the first client is made, as often as wanted.
pub fn install() {
    // An error means that it is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
}

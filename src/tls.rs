//! The TLS backend, the same for every client of this program.

/// Installs the backend for the process. Every client needs it before it is made; calling this
/// again does nothing.
pub fn install() {
    // An error means that a backend is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
}

//! Certificate authorities of a PEM file.

use std::path::Path;

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::runtime::files::{self, CERTIFICATES_BYTES_MAX};

/// Adds the certificates of a PEM file to the trusted ones.
///
/// # Errors
/// A sentence that names the file and says what would be right.
pub(crate) fn add(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let shown = file.display();
    let bytes = files::read(file, CERTIFICATES_BYTES_MAX);
    let bytes = bytes.map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let mut added_len = 0;
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let number = added_len + 1;
        let certificate =
            certificate.map_err(|error| format!("{shown} is not a valid PEM file: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("certificate {number} of {shown} cannot be used: {error}"))?;
        added_len += 1;
    }
    match added_len {
        0 => Err(format!(
            "{shown} holds no certificate; give a PEM file with at least one -----BEGIN CERTIFICATE-----"
        )),
        _ => Ok(()),
    }
}

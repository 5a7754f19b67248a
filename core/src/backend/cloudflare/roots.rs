//! Whom a native process believes: the certificates that its system trusts.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};

use crate::error::{Error, ErrorKind, Result};

/// Where Android keeps them, newest first; nobody looks there by default.
const ANDROID: [&str; 2] = ["/apex/com.android.conscrypt/cacerts", "/system/etc/security/cacerts"];

/// TLS as every connection of this process has it; certificates are read once.
pub(super) fn tls() -> Result<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let config = Arc::new(believing(trusted(cfg!(target_os = "android"), &ANDROID))?);
    Ok(CONFIG.get_or_init(|| config).clone())
}

fn trusted(is_android: bool, folders: &[&str]) -> CertificateResult {
    match folders.iter().map(Path::new).find(|folder| is_android && folder.is_dir()) {
        Some(folder) => load_certs_from_paths(None, Some(folder)),
        None => load_native_certs(),
    }
}

fn believing(trusted: CertificateResult) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(
            |error| Error::new(ErrorKind::Config, "connect", "TLS can't be set up").with_source(error),
        )?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

    #[test]
    fn a_phone_believes_what_is_in_its_folder() {
        let folder = std::env::temp_dir().join(format!("mcp-sessions-roots-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("0a775a30.0"), PEM).unwrap();
        let path = folder.to_str().unwrap();
        assert_eq!(trusted(true, &["/nowhere", path]).certs.len(), 1);
        assert_eq!(trusted(false, &[path]).certs, load_native_certs().certs);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

//! Certificates for a trial: a CA, an agent and a client of it, and a client of another CA.

use std::path::{Path, PathBuf};

use chaos::agent::client::Credentials;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// A CA and its files.
pub(crate) struct Ca {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// A new one, whose files are in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        std::fs::write(folder.join("ca.pem"), certificate.pem()).expect("written");
        Self { folder: folder.to_owned(), issuer: Issuer::new(params, key) }
    }

    /// `NAME.pem` and `NAME.key`, of the loopback address.
    pub(crate) fn sign(&self, name: &str) {
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let write = |file: &str, text: String| {
            std::fs::write(self.folder.join(file), text).expect("written");
        };
        write(&format!("{name}.pem"), certificate.pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }

    /// A client `name` of this CA, who trusts agents of `agents`.
    pub(crate) fn client(&self, name: &str, agents: &Ca) -> Credentials {
        self.sign(name);
        Credentials {
            ca: agents.folder.join("ca.pem"),
            certificate: self.folder.join(format!("{name}.pem")),
            key: self.folder.join(format!("{name}.key")),
        }
    }
}

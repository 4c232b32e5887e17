//! Signing in the server's name: requests (`X-Matrix`) and JSON objects.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use config::Config;
use config::keys::SigningKey;
use ruma::signatures::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use types::{Error, Result, canonical};

/// The server's keys. The first one signs requests and events.
pub(crate) struct Signer {
    pub server_name: String,
    pub own: Vec<Key>,
    /// Sign answers about other servers' keys.
    pub notary: Vec<Key>,
}

/// One key pair.
pub(crate) struct Key {
    /// `ed25519:version`
    pub id: String,
    /// Base64 without padding.
    pub public: String,
    pair: Ed25519KeyPair,
}

impl Key {
    fn new(key: &SigningKey) -> Result<Self> {
        let pair = Ed25519KeyPair::from_der(&key.expose_pkcs8(), key.version.clone())?;
        Ok(Self { id: key.key_id(), public: STANDARD_NO_PAD.encode(pair.public_key()), pair })
    }

    /// Base64 without padding.
    fn sign(&self, text: &str) -> String {
        self.pair.sign(text.as_bytes()).base64()
    }
}

/// What is signed of an object: its canonical JSON without `signatures` and `unsigned`. 400 M_BAD_JSON for numbers
/// without a canonical form.
pub(crate) fn signable(object: &Value) -> Result<String> {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("signatures");
        map.remove("unsigned");
    }
    canonical::text_of(&object)
}

impl Signer {
    pub fn new(config: &Config) -> Result<Self> {
        let keys = |keys: &[SigningKey]| keys.iter().map(Key::new).collect::<Result<Vec<_>>>();
        let own = keys(&config.keys.signing)?;
        if own.is_empty() {
            return Err(Error::internal("no signing key"));
        }
        Ok(Self { server_name: config.server.name.to_string(), own, notary: keys(&config.keys.notary)? })
    }

    /// The `Authorization` header of a request (spec: Server-Server API, "Request Authentication").
    pub fn authorization(&self, method: &str, destination: &str, uri: &str, body: Option<&Value>) -> Result<String> {
        let key = &self.own[0];
        let signature = key.sign(&signable(&request(method, uri, &self.server_name, destination, body))?);
        Ok(format!(
            r#"X-Matrix origin="{}",key="{}",sig="{signature}",destination="{destination}""#,
            self.server_name, key.id
        ))
    }

    /// Adds our signatures to an object.
    pub fn sign<'a>(&self, object: &mut Value, keys: impl IntoIterator<Item = &'a Key>) -> Result<()> {
        let text = signable(object)?;
        for key in keys {
            object["signatures"][&self.server_name][&key.id] = key.sign(&text).into();
        }
        Ok(())
    }
}

/// What is signed of a request.
pub(crate) fn request(method: &str, uri: &str, origin: &str, destination: &str, body: Option<&Value>) -> Value {
    let mut object = json!({"method": method, "uri": uri, "origin": origin, "destination": destination});
    if let Some(body) = body {
        object["content"] = body.clone();
    }
    object
}

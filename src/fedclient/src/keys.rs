//! Keys of servers (spec: Server-Server API, "Retrieving server keys"): from the database, from the trusted key servers,
//! from the server itself. Answers about keys, our own included.

use crate::sign::signable;
use crate::{Call, Fed};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use config::keys::TrustedKeyServer;
use futures::StreamExt;
use ruma::signatures::verify_canonical_json_bytes;
use serde_json::{Map, Value, json};
use slog::{debug, info};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;
use store::server_keys::{FetchedKeys, KeyName, ServerKey};
use types::{Boxed, Error, Result};

/// Keys are written with and without padding.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// No key is believed for longer than this after it was fetched (spec: "Publishing Keys", `valid_until_ts`).
const LONGEST_VALIDITY_MS: i64 = 7 * 86_400_000;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Servers asked at the same time.
const AT_ONCE: usize = 20;

/// A key that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub server: String,
    pub key_id: String,
    /// It must be valid at this time (milliseconds since the epoch), or at any (0).
    pub valid_at_ms: i64,
}

/// Keys by server and key id.
pub type Keys = HashMap<KeyName, ServerKey>;

impl Fed {
    /// Those of the wanted keys that can be had and are valid when they must be.
    pub fn keys<'a>(&'a self, wanted: &'a [Wanted]) -> Boxed<'a, Result<Keys>> {
        Box::pin(async move {
            let mut found = Keys::new();
            let mut missing = self.look_up(wanted.to_vec(), &mut found).await?;
            if missing.is_empty() {
                return Ok(found);
            }
            // One fetch at a time for each server; in order, so that two that want several do not wait for each other.
            let servers: BTreeSet<String> = missing.iter().map(|w| w.server.clone()).collect();
            let mut guards = Vec::new();
            for server in &servers {
                let lock = self.0.fetching.entry(server.clone()).or_default().clone();
                guards.push(lock.lock_owned().await);
            }
            missing = self.look_up(missing, &mut found).await?;
            for notary in &self.0.cx.config.keys.trusted_servers {
                if missing.is_empty() {
                    break;
                }
                match self.ask_notary(notary, &missing).await {
                    Ok(()) => missing = self.look_up(missing, &mut found).await?,
                    Err(e) => {
                        info!(self.0.cx.log, "key server did not help"; "server" => &notary.server_name, "error" => %e)
                    }
                }
            }
            if !missing.is_empty() {
                self.ask_directly(&missing).await;
                self.look_up(missing, &mut found).await?;
            }
            drop(guards);
            for server in &servers {
                self.0.fetching.remove_if(server, |_, lock| std::sync::Arc::strong_count(lock) == 1);
            }
            Ok(found)
        })
    }

    /// Puts what is known into `found`; returns the rest.
    async fn look_up(&self, wanted: Vec<Wanted>, found: &mut Keys) -> Result<Vec<Wanted>> {
        let (own, others): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|w| w.server == self.0.signer.server_name);
        for w in own {
            if let Some(key) = self.own_key(&w.key_id).filter(|k| k.valid_until_ms >= w.valid_at_ms) {
                found.insert(KeyName(w.server, w.key_id), key);
            }
        }
        let names: Vec<KeyName> = others.iter().map(|w| KeyName(w.server.clone(), w.key_id.clone())).collect();
        let known = self.0.cx.store.server_keys(&names).await?;
        let mut missing = Vec::new();
        for (name, w) in names.into_iter().zip(others) {
            match known.get(&name) {
                Some(key) if key.valid_until_ms >= w.valid_at_ms => drop(found.insert(name, key.clone())),
                _ => missing.push(w),
            }
        }
        Ok(missing)
    }

    fn own_key(&self, key_id: &str) -> Option<ServerKey> {
        if let Some(key) = self.0.signer.own.iter().find(|k| k.id == key_id) {
            return Some(ServerKey { key: key.public.clone(), valid_until_ms: i64::MAX });
        }
        let old = self.0.cx.config.keys.old.get(key_id)?;
        Some(ServerKey { key: old.key.clone(), valid_until_ms: old.expired_ts as i64 })
    }

    async fn ask_notary(&self, notary: &TrustedKeyServer, missing: &[Wanted]) -> Result<()> {
        if notary.server_name == self.0.signer.server_name {
            return Ok(());
        }
        let mut query: BTreeMap<&str, BTreeMap<&str, Value>> = BTreeMap::new();
        for w in missing.iter().filter(|w| w.server != notary.server_name) {
            let criteria = json!({"minimum_valid_until_ts": w.valid_at_ms});
            query.entry(&w.server).or_default().insert(&w.key_id, criteria);
        }
        if query.is_empty() {
            return Ok(());
        }
        let body = json!({"server_keys": query});
        let call = Call::post(&notary.server_name, "/_matrix/key/v2/query", &body).once(TIMEOUT);
        let answer = self.call(call).await?;
        let mut fetched = Vec::new();
        for keys in answer["server_keys"].as_array().into_iter().flatten() {
            let server = keys["server_name"].as_str().unwrap_or_default().to_owned();
            if !query.contains_key(server.as_str()) {
                continue;
            }
            match self.check_notary(notary, keys).and_then(|()| self.check_answer(&server, keys)) {
                Ok(keys) => fetched.push(keys),
                Err(e) => {
                    info!(self.0.cx.log, "keys from a key server not believed"; "server" => server, "error" => %e)
                }
            }
        }
        self.0.cx.store.store_server_keys(&notary.server_name, &fetched, self.0.cx.now_ms()).await
    }

    /// With keys of the notary configured, it must have signed with one of them; without, TLS vouches for it.
    fn check_notary(&self, notary: &TrustedKeyServer, keys: &Value) -> Result<()> {
        if notary.verify_keys.is_empty() {
            return Ok(());
        }
        let text = signable(keys)?;
        let signed = notary.verify_keys.iter().any(|(id, key)| {
            keys["signatures"][&notary.server_name][id].as_str().is_some_and(|sig| is_signed(key, sig, &text))
        });
        if signed { Ok(()) } else { Err(Error::internal(format!("not signed by {}", notary.server_name))) }
    }

    async fn ask_directly(&self, missing: &[Wanted]) {
        let servers: BTreeSet<String> = missing.iter().map(|w| w.server.clone()).collect();
        let ask = |server: String| {
            let fed = self.clone();
            async move {
                let outcome = fed.fetch_keys(&server).await;
                (server, outcome)
            }
        };
        let mut answers = futures::stream::iter(servers).map(ask).buffer_unordered(AT_ONCE);
        while let Some((server, answer)) = answers.next().await {
            if let Err(e) = answer {
                debug!(self.0.cx.log, "no keys from a server"; "server" => server, "error" => %e);
            }
        }
    }

    /// Fetches a server's keys from itself and keeps them.
    pub fn fetch_keys<'a>(&'a self, server: &'a str) -> Boxed<'a, Result<()>> {
        Box::pin(async move {
            let mut call = Call::get(server, "/_matrix/key/v2/server").once(TIMEOUT);
            call.ignore_backoff = true;
            let answer = self.call(call).await?;
            let keys = self.check_answer(server, &answer)?;
            self.0.cx.store.store_server_keys(server, &[keys], self.0.cx.now_ms()).await
        })
    }

    /// What a server says of its keys, if it has signed that with all of its current keys that it signed it with, one
    /// at least. We sign it, too, as we may be asked for it.
    fn check_answer(&self, server: &str, answer: &Value) -> Result<FetchedKeys> {
        let bad = |what: &str| Error::internal(format!("keys of {server}: {what}"));
        if answer["server_name"].as_str() != Some(server) {
            return Err(bad("server_name is another"));
        }
        let valid_until_ms = answer["valid_until_ts"].as_i64().ok_or_else(|| bad("no valid_until_ts"))?;
        let valid_until_ms = valid_until_ms.min(self.0.cx.now_ms() + LONGEST_VALIDITY_MS);
        let text = signable(answer)?;
        let (mut keys, mut raw, mut signed) = (HashMap::new(), HashMap::new(), false);
        for (id, key, until) in keys_in(answer, valid_until_ms) {
            let Ok(bytes) = BASE64.decode(key) else { continue };
            if answer["verify_keys"].get(id).is_some()
                && let Some(signature) = answer["signatures"][server][id].as_str()
            {
                if !is_signed(key, signature, &text) {
                    return Err(bad("a signature is wrong"));
                }
                signed = true;
            }
            keys.insert(id.to_owned(), ServerKey { key: BASE64.encode(&bytes), valid_until_ms: until });
            raw.insert(id.to_owned(), bytes);
        }
        if !signed {
            return Err(bad("not signed by the server"));
        }
        let mut ours = answer.clone();
        self.0.signer.sign(&mut ours, &self.0.signer.notary)?;
        Ok(FetchedKeys { server_name: server.to_owned(), keys, raw, json: ours.to_string() })
    }

    /// Our own keys, signed with all of them: the answer to `/_matrix/key/v2/server`.
    pub fn own_keys(&self) -> Result<Value> {
        let config = &self.0.cx.config.keys;
        let signer = &self.0.signer;
        let current: Map<String, Value> = signer.own.iter().map(|k| (k.id.clone(), json!({"key": k.public}))).collect();
        let old = config.old.iter().map(|(id, k)| (id.clone(), json!({"key": k.key, "expired_ts": k.expired_ts})));
        let mut keys = json!({
            "server_name": signer.server_name,
            "verify_keys": current,
            "old_verify_keys": old.collect::<Map<_, _>>(),
            "valid_until_ts": self.0.cx.now_ms() + config.refresh_interval_ms as i64,
        });
        signer.sign(&mut keys, &signer.own)?;
        Ok(keys)
    }

    /// What is known of other servers' keys, signed by us as a key server; what is missing, too old or not valid as
    /// long as asked for is fetched first. `query`: server → key id → `minimum_valid_until_ts`; no key ids: all known.
    pub fn notarise(&self, query: BTreeMap<String, BTreeMap<String, Option<i64>>>) -> Boxed<'_, Result<Vec<Value>>> {
        Box::pin(async move {
            let mut answers = BTreeSet::new();
            let ask = |(server, ids): (String, BTreeMap<String, Option<i64>>)| {
                let fed = self.clone();
                async move { fed.answers(&server, &ids).await }
            };
            let mut fetched = futures::stream::iter(query).map(ask).buffer_unordered(AT_ONCE);
            while let Some(found) = fetched.next().await {
                answers.extend(found?);
            }
            let mut signed = Vec::new();
            for json in answers {
                let mut keys: Value = serde_json::from_str(&json)?;
                self.0.signer.sign(&mut keys, &self.0.signer.notary)?;
                signed.push(keys);
            }
            Ok(signed)
        })
    }

    async fn answers(&self, server: &str, ids: &BTreeMap<String, Option<i64>>) -> Result<Vec<String>> {
        let names: Option<Vec<String>> = (!ids.is_empty()).then(|| ids.keys().cloned().collect());
        let now = self.0.cx.now_ms();
        let store = &self.0.cx.store;
        if server == self.0.signer.server_name {
            return Ok(vec![self.own_keys()?.to_string()]);
        }
        let known = store.server_key_answers(server, names.as_deref()).await?;
        let fresh = |id: &String, least: &Option<i64>| {
            known.iter().find(|a| a.key_id == *id).is_some_and(|a| match least {
                Some(least) => a.valid_until_ms >= *least,
                // Half of its life is over: a newer one is likely to be there.
                None => (a.added_ms / 2 + a.valid_until_ms / 2) >= now,
            })
        };
        let enough = if ids.is_empty() { !known.is_empty() } else { ids.iter().all(|(id, least)| fresh(id, least)) };
        if enough {
            return Ok(known.into_iter().map(|a| a.json).collect());
        }
        if let Err(e) = self.fetch_keys(server).await {
            debug!(self.0.cx.log, "no keys from a server"; "server" => server, "error" => %e);
        }
        let known = store.server_key_answers(server, names.as_deref()).await?;
        Ok(known.into_iter().map(|a| a.json).collect())
    }
}

/// Key id, key and until when it is valid, for current and old ones.
fn keys_in(answer: &Value, valid_until_ms: i64) -> impl Iterator<Item = (&str, &str, i64)> {
    let part = |name: &str| answer[name].as_object().into_iter().flatten();
    let current =
        part("verify_keys").filter_map(move |(id, k)| Some((id.as_str(), k["key"].as_str()?, valid_until_ms)));
    let old = part("old_verify_keys")
        .filter_map(|(id, k)| Some((id.as_str(), k["key"].as_str()?, k["expired_ts"].as_i64()?)));
    current.chain(old).filter(|(id, _, _)| id.starts_with("ed25519:"))
}

/// Whether a text was signed with the private half of a key. Both in base64.
pub(crate) fn is_signed(key: &str, signature: &str, text: &str) -> bool {
    let (Ok(key), Ok(signature)) = (BASE64.decode(key), BASE64.decode(signature)) else { return false };
    let algorithm = ruma::signatures::SigningKeyAlgorithm::Ed25519;
    verify_canonical_json_bytes(&algorithm, &key, &signature, text.as_bytes()).is_ok()
}

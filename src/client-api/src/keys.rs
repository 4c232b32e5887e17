//! End-to-end encryption keys (spec: "Key management API").

use crate::proof;
use app::App;
use devices::KeyUpload;
use http::{Route, Rq, misshapen, route};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use types::{Error, Requester, Result, StreamToken};

pub fn routes() -> Vec<Route<App>> {
    vec![
        route("POST", "KeyUploadServlet", "/_matrix/client/(r0|v3|unstable)/keys/upload").guest(upload),
        route("POST", "KeyQueryServlet", "/_matrix/client/(r0|v3|unstable)/keys/query").guest(query),
        route("GET", "KeyChangesServlet", "/_matrix/client/(r0|v3|unstable)/keys/changes").guest(changes),
        route("POST", "OneTimeKeyServlet", "/_matrix/client/(r0|v3|unstable)/keys/claim").guest(claim),
        route("POST", "UnstableOneTimeKeyServlet", "/_matrix/client/unstable/org.matrix.msc3983/keys/claim")
            .guest(claim_with_fallback),
        route("POST", "SigningKeyUploadServlet", "/_matrix/client/(v3|unstable)/keys/device_signing/upload")
            .user(upload_signing_keys),
        route("POST", "SignaturesUploadServlet", "/_matrix/client/(r0|v3|unstable)/keys/signatures/upload")
            .guest(upload_signatures),
    ]
}

type Signatures = BTreeMap<String, BTreeMap<String, String>>;

/// Shape of `device_keys`; what is stored is the object as it came.
#[derive(Deserialize)]
#[expect(dead_code, reason = "read to check their types")]
struct DeviceKeys {
    algorithms: Vec<String>,
    device_id: String,
    keys: BTreeMap<String, String>,
    signatures: Signatures,
    user_id: String,
}

/// Shape of a signed one-time or fallback key.
#[derive(Deserialize)]
#[expect(dead_code, reason = "read to check their types")]
struct KeyObject {
    key: String,
    fallback: Option<bool>,
    signatures: Signatures,
}

/// The keys under `field`, each named `algorithm:id` and either a string or a signed key.
pub(crate) fn named_keys(body: &Map<String, Value>, field: &str) -> Result<Map<String, Value>> {
    let keys = match body.get(field) {
        None | Some(Value::Null) => return Ok(Map::new()),
        Some(Value::Object(keys)) => keys,
        Some(_) => return Err(Error::bad_json(format!("{field} must be an object"))),
    };
    for (name, key) in keys {
        if name.split(':').count() != 2 {
            return Err(Error::bad_json(format!("Invalid {field} key {name:?}. Expected \"<algorithm>:<key_id>\".")));
        }
        if !key.is_string() {
            KeyObject::deserialize(key).map_err(|e| misshapen(&format!("{field}.{name}"), &e))?;
        }
    }
    Ok(keys.clone())
}

/// `device_keys`, which must be of the device that uploads them.
fn own_device_keys(body: &Map<String, Value>, user_id: &str, device_id: &str) -> Result<Option<Value>> {
    let Some(value) = body.get("device_keys") else { return Ok(None) };
    if value.is_null() {
        return Err(Error::invalid_param("device_keys must not be null"));
    }
    let keys = DeviceKeys::deserialize(value).map_err(|e| misshapen("device_keys", &e))?;
    if keys.user_id != user_id {
        return Err(Error::bad_json(
            "Provided `user_id` in `device_keys` does not match that of the authenticated user",
        ));
    }
    if keys.device_id != device_id {
        return Err(Error::bad_json(
            "Provided `device_id` in `device_keys` does not match that of the authenticated user device",
        ));
    }
    Ok(Some(value.clone()))
}

async fn upload(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let body: Map<String, Value> = rq.json()?;
    let user_id = who.user_id.as_str();
    let device_id = who.device_id.as_deref();
    let device_id =
        device_id.ok_or_else(|| Error::bad_request("To upload keys, you must pass device_id when authenticating"))?;
    let keys = KeyUpload {
        device_keys: own_device_keys(&body, user_id, device_id)?,
        one_time_keys: named_keys(&body, "one_time_keys")?,
        fallback_keys: named_keys(&body, "fallback_keys")?,
    };
    app.devices.upload_keys(user_id, device_id, keys).await
}

async fn query(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let body: Map<String, Value> = rq.json()?;
    let wanted = body.get("device_keys").and_then(Value::as_object);
    let wanted = wanted.ok_or_else(|| Error::bad_json("'device_keys' must be a JSON object"))?;
    let lists = wanted.iter().map(|(user, devices)| {
        let devices = Vec::<String>::deserialize(devices);
        Ok((user.clone(), devices.map_err(|_| Error::bad_json("'device_keys' values must be a list of strings"))?))
    });
    app.devices.query_keys(who.user_id.as_str(), &lists.collect::<Result<_>>()?).await
}

async fn changes(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let from = rq.param("from").ok_or_else(|| Error::missing_param("Missing string query parameter 'from'"))?;
    let changes = app.devices.key_changes(who.user_id.as_str(), &StreamToken::parse(from)?).await?;
    Ok(json!({"changed": changes.changed, "left": changes.left}))
}

/// One key a device: its algorithm.
#[derive(Deserialize)]
struct Claim {
    #[serde(default)]
    one_time_keys: BTreeMap<String, BTreeMap<String, String>>,
}

async fn claim(app: App, _: Requester, rq: Rq) -> Result<Value> {
    let Claim { one_time_keys } = rq.json()?;
    let one = |(device, algorithm)| (device, BTreeMap::from([(algorithm, 1)]));
    let wanted =
        one_time_keys.into_iter().map(|(user, devices)| (user, devices.into_iter().map(one).collect())).collect();
    app.devices.claim_keys(&wanted, false).await
}

/// Several keys a device: a list of algorithms.
#[derive(Deserialize)]
struct ClaimMany {
    #[serde(default)]
    one_time_keys: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

async fn claim_with_fallback(app: App, _: Requester, rq: Rq) -> Result<Value> {
    if !app.cx.config.experimental.on("msc3983_appservice_otk_claims") {
        return Err(Error::unrecognized("Unrecognized request"));
    }
    let ClaimMany { one_time_keys } = rq.json()?;
    let mut wanted: BTreeMap<String, BTreeMap<String, BTreeMap<String, i64>>> = BTreeMap::new();
    for (user, devices) in one_time_keys {
        for (device, algorithms) in devices {
            let counts = wanted.entry(user.clone()).or_default().entry(device).or_default();
            for algorithm in algorithms {
                *counts.entry(algorithm).or_default() += 1;
            }
        }
    }
    app.devices.claim_keys(&wanted, true).await
}

async fn upload_signing_keys(app: App, who: Requester, rq: Rq) -> Result<()> {
    let body: Map<String, Value> = rq.json()?;
    let user_id = who.user_id.as_str();
    if !app.devices.has_new_cross_signing_keys(user_id, &body).await? {
        return Ok(());
    }
    if who.app_service.is_none() && app.devices.cross_signing_needs_auth(user_id).await? {
        proof::prove(&app, &who, &rq, "reset the device signing key on your account", false).await?;
    }
    app.devices.upload_cross_signing_keys(user_id, &body).await
}

async fn upload_signatures(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let body: Map<String, Value> = rq.json()?;
    app.devices.upload_signatures(who.user_id.as_str(), &body).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn one_time_keys_are_strings_or_signed_keys() {
        let keys = |v: Value| named_keys(&object(json!({"one_time_keys": v})), "one_time_keys");
        assert!(keys(json!({"a:b": "x", "a:c": {"key": "x", "signatures": {}}})).is_ok_and(|k| k.len() == 2));
        assert!(keys(json!(null)).is_ok_and(|k| k.is_empty()));
        for bad in [json!([]), json!({"ab": "x"}), json!({"a:b:c": "x"}), json!({"a:b": 1}), json!({"a:b": {"key": 1}})]
        {
            assert_eq!(keys(bad).unwrap_err().errcode(), Some("M_BAD_JSON"));
        }
        assert_eq!(keys(json!({"a:b": {"key": "x"}})).unwrap_err().errcode(), Some("M_MISSING_PARAM"));
    }

    #[test]
    fn device_keys_must_be_of_the_caller() {
        let keys = json!({"algorithms": [], "device_id": "D", "keys": {}, "signatures": {}, "user_id": "@a:x"});
        let body = object(json!({"device_keys": keys}));
        assert!(own_device_keys(&body, "@a:x", "D").is_ok_and(|k| k.is_some()));
        assert!(own_device_keys(&body, "@b:x", "D").is_err());
        assert!(own_device_keys(&body, "@a:x", "E").is_err());
        assert!(own_device_keys(&object(json!({"device_keys": null})), "@a:x", "D").is_err());
    }
}

//! Hashes of events, and what of them is signed (spec: Server-Server API, "Signing Events").

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ruma::room_version_rules::{EventIdFormatVersion, RedactionRules, RoomVersionRules};
use sha2::{Digest, Sha256};
use types::Result;
use types::canonical::{Object, redacted, text};

fn without(mut event: Object, keys: &[&str]) -> String {
    event.retain(|key, _| !keys.contains(&key.as_str()));
    text(&event)
}

/// Hash of an event's whole content: `hashes.sha256`, unpadded base64.
pub fn content_hash(event: &Object) -> String {
    let text = without(event.clone(), &["hashes", "signatures", "unsigned"]);
    STANDARD_NO_PAD.encode(Sha256::digest(text))
}

/// Hash that others refer to an event by, in the base64 of the room version's event ids. 400 M_BAD_JSON for what is
/// no event.
pub fn reference_hash(event: &Object, rules: &RoomVersionRules) -> Result<String> {
    let digest = Sha256::digest(signed_text(event, &rules.redaction)?);
    Ok(match rules.event_id_format {
        EventIdFormatVersion::V1 | EventIdFormatVersion::V2 => STANDARD_NO_PAD.encode(digest),
        _ => URL_SAFE_NO_PAD.encode(digest),
    })
}

/// What of an event is signed: what a redaction leaves, without signatures. 400 M_BAD_JSON for what is no event.
pub fn signed_text(event: &Object, rules: &RedactionRules) -> Result<String> {
    Ok(without(redacted(event, rules)?, &["signatures", "unsigned"]))
}

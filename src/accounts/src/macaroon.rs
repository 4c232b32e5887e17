//! Macaroons (v1, binary) as Synapse makes them: guests' access tokens and tokens of unsubscribe links.

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use rand::Rng;
use sha2::Sha256;

/// Characters of a nonce.
const SYMBOLS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,;:^&*-_+=#~@";

type Tag = [u8; 32];

fn hmac(key: &[u8], data: &[u8]) -> Option<Tag> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(data);
    Some(mac.finalize().into_bytes().into())
}

/// Signature of identifier and caveats.
fn sign(root: &[u8], caveats: &[String]) -> Option<Tag> {
    let derived = hmac(b"macaroons-key-generator", root)?;
    caveats.iter().try_fold(hmac(&derived, b"key")?, |tag, caveat| hmac(&tag, caveat.as_bytes()))
}

fn packet(out: &mut Vec<u8>, key: &str, data: &[u8]) {
    let length = 4 + key.len() + 1 + data.len() + 1;
    out.extend_from_slice(format!("{length:04x}{key} ").as_bytes());
    out.extend_from_slice(data);
    out.push(b'\n');
}

fn serialise(location: &str, root: &[u8], caveats: &[String]) -> Option<String> {
    let tag = sign(root, caveats)?;
    let mut out = Vec::new();
    packet(&mut out, "location", location.as_bytes());
    packet(&mut out, "identifier", b"key");
    for caveat in caveats {
        packet(&mut out, "cid", caveat.as_bytes());
    }
    packet(&mut out, "signature", &tag);
    Some(URL_SAFE_NO_PAD.encode(out))
}

/// The access token of a guest. None only if the key cannot be used.
pub(crate) fn guest_token(location: &str, root: &[u8], user_id: &str) -> Option<String> {
    let mut rng = rand::rng();
    let nonce: String = (0..16).map(|_| SYMBOLS[rng.random_range(0..SYMBOLS.len())] as char).collect();
    let caveats = [
        "gen = 1".to_owned(),
        "type = access".to_owned(),
        format!("user_id = {user_id}"),
        format!("nonce = {nonce}"),
        "guest = true".to_owned(),
    ];
    serialise(location, root, &caveats)
}

struct Parsed {
    caveats: Vec<String>,
    tag: Tag,
}

fn parse(token: &str) -> Option<Parsed> {
    let bytes = URL_SAFE_NO_PAD.decode(token).or_else(|_| URL_SAFE.decode(token)).ok()?;
    let mut rest = &bytes[..];
    let mut caveats = Vec::new();
    let mut tag = None;
    while !rest.is_empty() {
        let length = usize::from_str_radix(std::str::from_utf8(rest.get(..4)?).ok()?, 16).ok()?;
        let body = rest.get(4..length)?.strip_suffix(b"\n")?;
        rest = rest.get(length..)?;
        let at = body.iter().position(|b| *b == b' ')?;
        let (key, data) = (&body[..at], &body[at + 1..]);
        match key {
            b"location" => {}
            b"identifier" if data == b"key" => {}
            b"cid" => caveats.push(String::from_utf8(data.to_vec()).ok()?),
            b"signature" => tag = Some(Tag::try_from(data).ok()?),
            // Third-party caveats are not ours.
            _ => return None,
        }
    }
    Some(Parsed { caveats, tag: tag? })
}

/// The caveats of a macaroon signed with `root`.
fn verified(token: &str, root: &[u8]) -> Option<Vec<String>> {
    let parsed = parse(token)?;
    let expected = sign(root, &parsed.caveats)?;
    let same = expected.iter().zip(&parsed.tag).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0;
    same.then_some(parsed.caveats)
}

fn single<'a>(caveats: &'a [String], prefix: &str) -> Option<&'a str> {
    let mut values = caveats.iter().filter_map(|c| c.strip_prefix(prefix));
    let first = values.next()?;
    values.all(|v| v == first).then_some(first)
}

/// The guest a token belongs to; None unless it is a valid guest token. `now_ms`: for old tokens with an expiry.
pub(crate) fn verify_guest_token(token: &str, root: &[u8], now_ms: i64) -> Option<String> {
    let caveats = verified(token, root)?;
    let fits = |c: &String| {
        matches!(c.as_str(), "gen = 1" | "type = access" | "guest = true")
            || c.starts_with("user_id = ")
            || c.starts_with("nonce = ")
            || c.strip_prefix("time < ").and_then(|t| t.parse::<i64>().ok()).is_some_and(|t| now_ms < t)
    };
    let guest = caveats.iter().any(|c| c == "guest = true");
    if !guest || !caveats.iter().all(fits) {
        return None;
    }
    single(&caveats, "user_id = ").map(str::to_owned)
}

/// Whose pusher a link removes; None unless the token is for just this pusher.
pub fn verify_delete_pusher(token: &str, root: &[u8], app_id: &str, pushkey: &str) -> Option<String> {
    let caveats = verified(token, root)?;
    let (app, key) = (format!("app_id = {app_id}"), format!("pushkey = {pushkey}"));
    let fits = |c: &String| {
        matches!(c.as_str(), "gen = 1" | "type = delete_pusher")
            || *c == app
            || *c == key
            || c.starts_with("user_id = ")
    };
    if !caveats.iter().all(fits) || !caveats.contains(&app) || !caveats.contains(&key) {
        return None;
    }
    single(&caveats, "user_id = ").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_token_is_only_good_with_the_right_key() {
        let token = guest_token("hs1.test", b"secret", "@1:hs1.test").unwrap();
        assert_eq!(verify_guest_token(&token, b"secret", 0).as_deref(), Some("@1:hs1.test"));
        assert_eq!(verify_guest_token(&token, b"other", 0), None);
        assert!(verify_guest_token("rubbish", b"secret", 0).is_none());
    }

    #[test]
    fn caveats_must_all_be_known_and_met() {
        let caveats = |extra: &str| {
            ["gen = 1", "type = access", "user_id = @1:h", "guest = true", extra].map(str::to_owned).to_vec()
        };
        let token = |extra| serialise("h", b"k", &caveats(extra)).unwrap();
        assert!(verify_guest_token(&token("time < 100"), b"k", 99).is_some());
        assert!(verify_guest_token(&token("time < 100"), b"k", 100).is_none());
        assert!(verify_guest_token(&token("colour = red"), b"k", 0).is_none());
        assert!(verify_guest_token(&token("user_id = @2:h"), b"k", 0).is_none());
    }
}
